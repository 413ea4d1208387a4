"""Questions about a demo scene with their true answers. Only what the picture settles is ever asked."""
import re

from demo_scenes import COLORS, SHAPES, SIZES

KINDS = ("describe", "color", "shape", "size", "count", "where", "exists", "grounding")
SHORT_KINDS = ("color", "shape", "size", "count", "where", "exists")
WEIGHTS = (1.2, 1.0, 0.7, 0.9, 1.6, 1.2, 1.4, 4.0)  # how often training asks each kind
GROUNDING = "Please provide the bounding box coordinate of the region this sentence describes: {}."
PLACES = {"top left": "at the top left", "top": "at the top", "top right": "at the top right",
          "left": "on the left", "center": "in the center", "right": "on the right",
          "bottom left": "at the bottom left", "bottom": "at the bottom", "bottom right": "at the bottom right"}


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def name_of(o):
    return f"{o['color']} {o['shape']}"


def referring(rng, objects, hidden):
    """An (object, phrase) pair whose phrase fits this object only and does not give away the attribute `hidden`."""
    options = []
    for o in objects:
        alone = lambda *keys: sum(all(p[k] == o[k] for k in keys) for p in objects) == 1
        if hidden == "color":
            if alone("shape"):
                options.append((o, o["shape"]))
            elif alone("size", "shape"):
                options.append((o, f"{o['size']} {o['shape']}"))
        elif hidden == "shape":
            if alone("color"):
                options.append((o, f"{o['color']} {pick(rng, ['shape', 'object'])}"))
            elif alone("size", "color"):
                options.append((o, f"{o['size']} {o['color']} shape"))
        else:
            options.append((o, name_of(o)))
            if alone("shape"):
                options.append((o, o["shape"]))
        if hidden != "position" and alone("position"):
            options.append((o, f"shape {PLACES[o['position']]}"))
    return pick(rng, options) if options else (None, None)


def describe(rng, objects):
    question = pick(rng, ["Describe the image.", "Describe the image.", "Please describe the picture.",
                          "What is in the image?", "What do you see in the picture?", "What can you see?"])
    parts = [f"{article(o['size'] + ' ' + name_of(o))} {PLACES[o['position']]}" for o in objects]
    if len(parts) == 1:
        return question, f"There is {parts[0]}.", None
    return question, f"There are {len(parts)} shapes: {', '.join(parts[:-1])} and {parts[-1]}.", None


def color(rng, objects):
    o, phrase = referring(rng, objects, "color")
    if o is None:
        return None
    question = pick(rng, ["What color is the {}?", "What is the color of the {}?", "Which color does the {} have?"])
    return question.format(phrase), o["color"].capitalize(), None


def shape(rng, objects):
    o, phrase = referring(rng, objects, "shape")
    if o is None:
        return None
    question = pick(rng, ["What shape is the {}?", "What is the {}?", "Which shape does the {} have?"])
    if phrase.startswith("shape"):
        question = pick(rng, ["What is the {}?", "Which one is the {}?"])
    return question.format(phrase), o["shape"].capitalize(), None


def size(rng, objects):
    o, phrase = referring(rng, objects, "size")
    question = pick(rng, ["What size is the {}?", "Is the {} small or large?", "Is the {} large or small?", "How big is the {}?"])
    return question.format(phrase), o["size"].capitalize(), None


def count(rng, objects):
    kind = int(rng.integers(3))
    present = rng.random() < 0.8
    if kind == 0:
        question = pick(rng, ["How many shapes are there?", "How many objects are in the image?", "Count the shapes."])
        return question, str(len(objects)), None
    if kind == 1:
        value = pick(rng, objects)["color"] if present else pick(rng, list(COLORS))
        question, number = f"How many {value} {pick(rng, ['shapes', 'objects'])} are there?", sum(o["color"] == value for o in objects)
    else:
        value = pick(rng, objects)["shape"] if present else pick(rng, SHAPES)
        question, number = f"How many {value}s are there?", sum(o["shape"] == value for o in objects)
    return question.replace("there?", pick(rng, ["there?", "in the image?"])), str(number), None


def where(rng, objects):
    o, phrase = referring(rng, objects, "position")
    question = pick(rng, ["Where is the {}?", "Where in the image is the {}?", "What is the position of the {}?"])
    return question.format(phrase), o["position"].capitalize(), None


def exists(rng, objects):
    """Half the answers are No, half of those near misses: the colour is there, or the shape, but not together."""
    wanted, found = rng.random() < 0.5, None
    while found != wanted:
        o, form = pick(rng, objects), int(rng.integers(4))
        tint, kind = o["color"], o["shape"]
        if not wanted:
            both = rng.random() < 0.3
            if both or rng.random() < 0.5:
                tint = pick(rng, list(COLORS))
            if both or tint == o["color"]:
                kind = pick(rng, SHAPES)
        if form == 0:
            phrase, found = kind, any(p["shape"] == kind for p in objects)
        elif form == 1:
            phrase, found = f"{tint} {pick(rng, ['shape', 'object'])}", any(p["color"] == tint for p in objects)
        else:
            phrase, found = f"{tint} {kind}", any(p["color"] == tint and p["shape"] == kind for p in objects)
    question = pick(rng, ["Is there {}?", "Is there {} in the image?", "Do you see {}?", "Can you see {}?"])
    return question.format(article(phrase)), "Yes" if found else "No", None


def box_text(box):
    return "[" + ", ".join(f"{value:.2f}" for value in box) + "]"


def grounding(rng, objects):
    o, phrase = referring(rng, objects, "position")
    if rng.random() < 0.2 and phrase == name_of(o):
        phrase = f"{o['size']} {phrase}"
    return GROUNDING.format(f"the {phrase}"), box_text(o["box"]), list(o["box"])


ASK = {"describe": describe, "color": color, "shape": shape, "size": size, "count": count, "where": where,
       "exists": exists, "grounding": grounding}


def ask(rng, scene, kind):
    """-> {kind, question, answer, box} or None where this picture allows no such question."""
    asked = ASK[kind](rng, scene["objects"])
    if asked is None:
        return None
    return {"kind": kind, "question": asked[0], "answer": asked[1], "box": asked[2]}


def follow_up(rng, scene):
    """Two turns of which the second says "it"."""
    o = pick(rng, scene["objects"])
    first = pick(rng, [{"kind": "exists", "question": f"Is there {article(name_of(o))}?", "answer": "Yes", "box": None},
                       {"kind": "size", "question": f"What size is the {name_of(o)}?", "answer": o["size"].capitalize(), "box": None},
                       {"kind": "where", "question": f"Where is the {name_of(o)}?", "answer": o["position"].capitalize(), "box": None}])
    key, question = pick(rng, [("size", "What size is it?"), ("position", "Where is it?")])
    kind = "where" if key == "position" else "size"
    if kind == first["kind"]:  # ask for the other one
        kind, key, question = ("where", "position", "Where is it?") if key == "size" else ("size", "size", "What size is it?")
    return [first, {"kind": kind, "question": question, "answer": o[key].capitalize(), "box": None}]


def any_question(rng, scene, kinds=KINDS, weights=WEIGHTS):
    total = sum(weights)
    while True:
        asked = ask(rng, scene, str(rng.choice(kinds, p=[w / total for w in weights])))
        if asked:
            return asked


def conversation(rng, scene, two_turns=0.2):
    """A list of one question, or of two: every training branch is one conversation."""
    if rng.random() >= two_turns:
        return [any_question(rng, scene)]
    if rng.random() < 0.3:
        return follow_up(rng, scene)
    return [any_question(rng, scene), any_question(rng, scene)]


# --------------------------------------------------------------------------------------------------- scoring
def parse_box(text):
    """The first box in an answer, read as the original's RefCOCO evaluation reads it; zeros where there is none."""
    found = re.findall(r"\[*\[(.*?),(.*?),(.*?),(.*?)\]\]*", text)
    try:
        box = [float(value) for value in found[0]] if found else [0.0] * 4
    except ValueError:
        box = [0.0] * 4
    return [value / 1000 for value in box] if sum(box) >= 4 else box


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return width * height / (area(a) + area(b) - width * height)


def is_right(kind, output, answer, box):
    """Exact match; for grounding an intersection over union of at least one half."""
    return iou(parse_box(output), box) >= 0.5 if kind == "grounding" else output == answer
