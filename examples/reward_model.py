"""A reward model from comparisons, used to rank new answers.

python examples/reward_model.py
"""

from __future__ import annotations

from typing import Any

import trimtab

MODEL = {"load": "smollm2-135m-q4", "template": "chatml"}
PLACES = ("the bakery", "the library", "the harbour", "the market", "the mill", "the inn", "the school", "the baths")
QUESTIONS = ("How was {}?", "What can you say of {}?", "Would you go to {} again?")
WARM = "I liked {} very much, and I would gladly go there again."
PLAIN = "{} is open, and I went there."
COLD = "I did not like {} at all, and nobody should go."
ROWS = [
    {
        "prompt": question.format(place),
        "answers": [WARM.format(place), PLAIN.format(place).capitalize(), COLD.format(place)],
        "ranks": [1, 2, 3],
    }
    for question in QUESTIONS
    for place in PLACES
]


def main(model: Any = MODEL, **keys: Any) -> trimtab.Result:
    settings: dict[str, Any] = {"minibatch": 12, "optimizer": {"lr": 5e-5}, "baselines": ["vader"], **keys}
    result = trimtab.RewardModel(model, {"source": ROWS, "heldout": 0.25}, **settings).run()
    print(*result.lines, sep="\n")

    scorer, tokenizer = result.model()
    for answer in ("I liked the bridge, and I would gladly cross it again.", "Nobody should cross the bridge."):
        turns = [{"role": "user", "content": "How was the bridge?"}, {"role": "assistant", "content": answer}]
        read = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        print(f"{scorer(read['input_ids']).logits.item():+.2f}  {answer}")
    return result


if __name__ == "__main__":
    main()
