"""Twenty prompts of 10 to 600 tokens: prose, chats with and without tools, code, tables, many scripts, and hard text."""

import json
import pathlib

import tokenizer_text

HELPDESK = pathlib.Path(__file__).resolve().parents[2] / "examples" / "helpdesk"
LENGTHS = [10, 12, 15, 18, 22, 27, 33, 40, 48, 58, 70, 85, 104, 130, 165, 215, 290, 390, 500, 600]

PROSE = """The harbour master kept two ledgers. In the first he wrote what the port authority wanted to know: the name of \
every ship, the hour it came in, what it carried and what it paid. In the second, which he showed to nobody, he wrote what \
the sea had looked like. He had started it in the winter of the great storm, when eleven boats did not come back, because he \
noticed that after a month people could no longer agree on which day the wind had turned. So he wrote it down: grey, with a \
long swell from the north-west; green near the stones; flat, and so clear that one could count the chain of the buoy.

When his daughter took over the office, she found forty volumes of it behind the tide tables. She read them through one \
summer, a year each evening, with the window open. By August she could tell, from the colour that her father had noted in the \
morning, whether the boats would be late. She bought a thermometer and a notebook with squared paper, and put numbers beside \
the words. The fishermen laughed about it until the first October gale, which she announced two days ahead, and which took \
nothing but a shed roof and three hens.

Some years later a young man came from the university to ask for the numbers. He was interested in temperatures only, and \
copied those out by hand, page after page, while the harbour master's daughter told him about the colours. He nodded and did \
not write them down. "Numbers can be compared," he said. "What would I do with 'green near the stones'?" She thought about it \
for a while. "You could do what I did," she said. "You could wait and see what comes after it." He laughed, but the next \
morning he was on the pier before sunrise, with a pencil behind his ear, looking at the water as if it were about to speak."""

STORY = """Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her dog, Max. \
One day, they saw a big red ball under a tree. "Look, Max! A ball!" said Lily. She ran to the ball, but it was stuck. Max \
pulled and pulled, but the ball did not move. Then a boy named Tim came to help. He had a long stick. He pushed the ball with \
the stick, and it rolled away. Lily was so happy. She said, "Thank you, Tim! Do you want to play with us?" Tim smiled and \
said, "Yes, please!" They played with the ball all day. When the sun went down, Lily's mom came to the park. She had some \
cookies for everyone. "It is time to go home," she said. Lily was sad, but Tim said, "We can play again tomorrow." The next \
day it rained and they could not go to the park. Lily looked out of the window and saw a small bird. The bird was wet and \
cold. She opened the window and let the bird in. Her mom gave the bird some bread and a warm towel. The bird sang a happy \
song. When the rain stopped, the bird flew up to the sky. Lily and Max ran outside and jumped in the water. Tim came too, and \
they all laughed. They learned that a good friend can make a bad day better. The end."""

CODE = '''import csv
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    station: str
    hour: int
    level_cm: float


def highest(path: str, *, since: int = 0) -> dict[str, Reading]:
    """The highest level of every station, from `since` on."""
    best: dict[str, Reading] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            reading = Reading(row["station"], int(row["hour"]), float(row["level_cm"]))
            if reading.hour < since:
                continue
            if reading.station not in best or reading.level_cm > best[reading.station].level_cm:
                best[reading.station] = reading
    return best


if __name__ == "__main__":
    for name, reading in sorted(highest("levels.csv", since=6).items()):
        print(f"{name:<12} {reading.hour:02d}:00 {reading.level_cm:8.1f} cm")
'''

TABLE = "\n".join(["station,hour,level_cm"] + [f"{s},{h},{(h * 37 + len(s) * 11) % 420 + 0.5}" for h in range(12)
                                               for s in ("Cuxhaven", "Brest", "Bergen")])


def chat(*turns):
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def tools_chat():
    tools = json.dumps(json.loads((HELPDESK / "tools.json").read_text()))
    return chat(("system", "You can call these tools: " + tools), ("user", "my vpn password doesn't work, user jmeyer"))


def sources():
    """(text, its longest prompt in tokens): short prompts are beginnings of these."""
    mixed = tokenizer_text.lines(60, seed=7, english=tokenizer_text.ENGLISH, special=[])
    return [
        PROSE, chat(("user", "Name three rivers in Europe, and the sea that each of them runs into, please.")), CODE,
        "The capital of France is Paris. The capital of Japan is Tokyo. The capital of Kenya is Nairobi. The capital of",
        STORY, TABLE, "\n".join(tokenizer_text.SCRIPTS), tools_chat(),
        chat(("system", "You are a helpful assistant."), ("user", "Why is the sky blue?"),
             ("assistant", "Because air scatters short waves more than long ones."),
             ("user", "And why is it red in the evening? Explain it to a child of six, in two sentences.")),
        b"\n".join(mixed).decode("utf-8", "replace"),
    ]


def cut(tokenizer, text, length):
    """A beginning of the text of about `length` tokens, ending with a whole character."""
    return text[:tokenizer.encode(text).offsets[:length][-1][1]]


def make(tokenizer, story=False, lengths=LENGTHS):
    """Texts of about these numbers of tokens, each from another source in turn."""
    texts = [STORY] if story else sources()
    counts = [len(tokenizer.encode(text).ids) for text in texts]
    out = []
    for i, length in enumerate(lengths):
        long_enough = [t for t, count in zip(texts, counts) if count >= length] or [texts[counts.index(max(counts))]]
        out.append(cut(tokenizer, long_enough[i % len(long_enough)], length))
    return out
