"""The slow LLaMA tokenizer of Hugging Face, on top of sentencepiece alone.

legacy=False: one space prefix per call, none after a special token. legacy=True: sentencepiece adds its own prefix to
every stretch of text between special tokens. Special strings count as special even where a user typed them.
"""
import os
import re

import sentencepiece

from checkpoint import read_json

UNDERLINE = "\u2581"
IMAGE_TOKEN_INDEX = -200
# A second normalizer_spec {add_dummy_prefix: false} at the end of the file is merged into the first one.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
SPECIAL = ("<unk>", "<s>", "</s>")


class LlamaTokenizer:
    def __init__(self, model_file, legacy=True, added=()):
        with open(model_file, "rb") as file:
            proto = file.read()
        self.legacy = legacy
        self.pieces = sentencepiece.SentencePieceProcessor()
        self.pieces.LoadFromSerializedProto(proto if legacy else proto + NO_DUMMY_PREFIX)
        self.special = {text: self.pieces.piece_to_id(text) for text in SPECIAL}
        self.bos = self.special["<s>"]
        for text in added:  # numbered on from the vocabulary's end
            if text not in self.special:
                self.special[text] = self.pieces.get_piece_size() + len(self.special) - len(SPECIAL)
        longest_first = sorted(self.special, key=len, reverse=True)
        self.splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    @classmethod
    def from_folder(cls, folder, config):
        """Reads `legacy` from tokenizer_config.json (absent: true) and adds the image tokens the config asks for."""
        path = os.path.join(folder, "tokenizer_config.json")
        legacy = read_json(path).get("legacy") if os.path.isfile(path) else None
        added = ["<im_patch>"] if config["mm_use_im_patch_token"] else []
        added += ["<im_start>", "<im_end>"] if config["mm_use_im_start_end"] else []
        return cls(os.path.join(folder, "tokenizer.model"), True if legacy is None else legacy, added)

    def encode(self, text):
        """Ids with a leading BOS."""
        if not text:
            return [self.bos]
        if not self.legacy:
            text = UNDERLINE + text.replace(UNDERLINE, " ")
        parts = [part for part in self.splitter.split(text) if part]
        ids = []
        for part in parts:
            ids += [self.special[part]] if part in self.special else self.pieces.encode(part)
        if not self.legacy and len(parts) > 1 and parts[0] == UNDERLINE and parts[1] in self.special:
            ids = ids[1:]  # the prefix alone in front of a special token
        return [self.bos] + ids

    def encode_with_images(self, prompt):
        """Every stretch around `<image>` on its own, one BOS in all, -200 where a picture goes."""
        chunks = [self.encode(chunk)[1:] for chunk in prompt.split("<image>")]
        ids = [self.bos] + chunks[0]
        for chunk in chunks[1:]:
            ids += [IMAGE_TOKEN_INDEX] + chunk
        return ids

    def decode(self, ids):
        """Text without special tokens: one leading space of the first piece goes, runs of byte pieces become UTF-8."""
        pieces = [id for id in ids if id not in self.special.values()]
        data = bytearray()
        for i, id in enumerate(pieces):
            piece = self.pieces.id_to_piece(id)
            if self.pieces.is_byte(id):
                data.append(int(piece[3:-1], 16))
                continue
            if i == 0 and piece.startswith(UNDERLINE):
                piece = piece[1:]
            data += piece.replace(UNDERLINE, " ").encode()
        return data.decode("utf-8", errors="replace")
