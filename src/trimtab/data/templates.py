"""Named chat templates, for models without one and for runs that want another than the tokenizer's. Torch-free.

Each marks what the assistant wrote, its end token included, with ``{% generation %}``, so the trained tokens are known
without rendering a conversation piece by piece.
"""

from __future__ import annotations

from trimtab.errors import ModelError
from trimtab.schema import did_you_mean

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}"
    "{{ message['content'] + '<|im_end|>\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML as its models were trained on it, without a system turn that nobody wrote."""

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
    "{% elif message['role'] == 'tool' %}{{ 'Tool: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'User: ' + message['content'] + '\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Roles in words and the tokenizer's own end-of-text token: for base models whose vocabulary has no turn tokens."""

TEMPLATES: dict[str, str] = {"chatml": CHATML, "plain": PLAIN}


def template_text(name: str) -> str:
    """The jinja text of a named template.

    Raises:
        ModelError: there is none of this name.
    """
    if name not in TEMPLATES:
        fix = f"{did_you_mean(name, TEMPLATES)}; null is the tokenizer's own"
        raise ModelError(f"no chat template is called '{name}'", fix=fix)
    return TEMPLATES[name]
