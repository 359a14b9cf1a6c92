"""Supervised fine-tuning: a small chat model learns the manner of a shop from a dozen demonstrations.

python examples/sft.py
"""

from __future__ import annotations

from typing import Any

import trimtab

MODEL = {"load": "smollm2-135m-q4", "template": "chatml"}
ASKED = (
    ("When do you open?", "We open at nine, every day but Monday."),
    ("Do you sell bread?", "Yes: rye, wheat, and on Fridays barley."),
    ("Is the rye fresh?", "It was baked this morning, at five."),
    ("Can I pay by card?", "By card or in coins, as you like."),
    ("Do you deliver?", "Within the town, before noon, and at no charge."),
    ("Is there seating?", "Two benches by the window, and one outside."),
    ("Do you have tea?", "Black, green and mint, by the cup or the pot."),
    ("May I bring my dog?", "Dogs are welcome on the bench outside."),
    ("Do you take orders?", "Yes, until six, for the next morning."),
    ("Are you hiring?", "Not now. Ask again when the harvest is in."),
    ("Is the cake sweet?", "A little. There is more apple in it than sugar."),
    ("What is cheapest?", "Yesterday's wheat, at half its price."),
)
ROWS = [{"prompt": question, "completion": answer} for question, answer in ASKED]


def main(model: Any = MODEL, **keys: Any) -> trimtab.Result:
    settings: dict[str, Any] = {"epochs": 4, "minibatch": 4, "optimizer": {"lr": 1e-4}, **keys}
    result = trimtab.SFT(model, {"source": ROWS, "heldout": 0.2}, **settings).run()
    print(f"held-out loss {result.summary['heldout_nll']:.3f} nats per token; the model is in {result.model_folder}")

    lm, tokenizer = result.model()
    turns = [{"role": "user", "content": "Do you sell coffee?"}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = asked["input_ids"]
    answer = lm.generate(ids, max_new_tokens=24, do_sample=False)
    print(tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True))
    return result


if __name__ == "__main__":
    main()
