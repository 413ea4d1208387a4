"""The slow LLaMA tokenizer (legacy=False) on any SentencePiece BPE model, the v1 prompt, and the demo model's vocabulary.

`Tokenizer` re-states what the inference engine does: BPE by scores, one '▁' prefix per chunk, BOS, special strings,
`<image>` as -200, and decoding without specials.
"""
import functools
import re

import sentencepiece

IMAGE = -200
SPECIALS = {"<unk>": 0, "<s>": 1, "</s>": 2}
SYSTEM = ("A chat between a curious user and an artificial intelligence assistant. "
          "The assistant gives helpful, detailed, and polite answers to the user's questions.")


def v1_prompt(questions, answers=(), image=True):
    """The v1 template: all questions so far and the answers to all but the last of them."""
    prompt = SYSTEM + " "
    for i, question in enumerate(questions):
        text = "<image>\n" + question if image and i == 0 else question
        prompt += f"USER: {text} ASSISTANT:"
        if i < len(answers):
            prompt += f" {answers[i]}</s>"
    return prompt


class Tokenizer:
    def __init__(self, path):
        sp = sentencepiece.SentencePieceProcessor(model_file=path)
        self.pieces = [sp.id_to_piece(i) for i in range(sp.get_piece_size())]
        self.scores = {piece: (sp.get_score(i), i) for i, piece in enumerate(self.pieces)
                       if not (sp.is_byte(i) or sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i))}
        self.first_byte = self.pieces.index("<0x00>")
        # Where no piece continues past a space, words can be encoded (and remembered) one by one.
        self.by_words = all("▁" not in piece[1:] for piece in self.scores)
        self.encode_word = functools.lru_cache(maxsize=100_000)(self.merge)

    def merge(self, text):
        """Byte-pair merging: the best-scoring neighbours first, leftmost on ties; unknown characters become bytes."""
        symbols = list(text)
        while True:
            best = None
            for i in range(len(symbols) - 1):
                entry = self.scores.get(symbols[i] + symbols[i + 1])
                if entry is not None and (best is None or entry[0] > best[0]):
                    best = (entry[0], i)
            if best is None:
                break
            symbols[best[1]:best[1] + 2] = [symbols[best[1]] + symbols[best[1] + 1]]
        ids = []
        for symbol in symbols:
            if symbol in self.scores:
                ids.append(self.scores[symbol][1])
            else:
                ids += [self.first_byte + byte for byte in symbol.encode()]
        return ids

    def encode_segment(self, text):
        """Plain BPE of a text without special strings; no prefix."""
        text = text.replace(" ", "▁")
        if not self.by_words:
            return self.merge(text)
        return [i for word in re.findall("▁[^▁]*|[^▁]+", text) for i in self.encode_word(word)]

    def encode(self, text):
        """As tokenizer(text).input_ids: BOS first, no EOS."""
        if not text:
            return [1]
        ids = []
        for part in re.split("(<unk>|<s>|</s>)", "▁" + text.replace("▁", " ")):
            ids += [SPECIALS[part]] if part in SPECIALS else self.encode_segment(part)
        if len(ids) > 1 and self.pieces[ids[0]] == "▁" and ids[1] in (0, 1, 2):
            ids = ids[1:]
        return [1] + ids

    def encode_prompt(self, prompt):
        """As tokenizer_image_token: every chunk around <image> is a text of its own, BOS is kept once."""
        ids = [1]
        for i, chunk in enumerate(prompt.split("<image>")):
            ids += ([IMAGE] if i else []) + self.encode(chunk)[1:]
        return ids

    def decode(self, ids):
        """As batch_decode(skip_special_tokens=True)[0].strip()."""
        pieces = [self.pieces[i] for i in ids if i not in (0, 1, 2)]
        if pieces and pieces[0].startswith("▁"):
            pieces[0] = pieces[0][1:]
        text, pending = "", b""
        for piece in pieces + [""]:
            if re.fullmatch("<0x[0-9A-F]{2}>", piece):
                pending += bytes([int(piece[3:5], 16)])
                continue
            text += pending.decode("utf-8", errors="replace") + piece.replace("▁", " ")
            pending = b""
        return text.strip()


def train_vocabulary(sentences, prefix, vocab_size):
    """Writes <prefix>.model with the stock LLaMA tokenizer's settings, only smaller."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_prefix=prefix, model_type="bpe", vocab_size=vocab_size,
        byte_fallback=True, split_digits=True, add_dummy_prefix=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", character_coverage=1.0, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        num_threads=1, minloglevel=2)
