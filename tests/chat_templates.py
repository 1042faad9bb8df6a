"""Small chat templates, shaped like those of models, and some that nobody should use."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] "
    "+ '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
FOLDS_SYSTEM = (
    "{{ bos_token }}{% set before = '' %}{% if messages[0]['role'] == 'system' %}"
    "{% set before = messages[0]['content'] + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + before "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
SYSTEM_LAST = (
    "{{ messages[-1]['content'] }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}"
)
DROPS_SYSTEM = (
    "{% for message in messages if message['role'] != 'system' %}"
    "[{{ message['content'] }}]{% endfor %}"
)
TWO_BOS = "{{ bos_token }}{{ bos_token }}{{ messages[-1]['content'] }}"
ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}{{ messages[-1]['content'] }}"
)
GREEDY = "{{ messages[-1]['content'] }}{{ 'a' * 9999999999 }}"
BREAKS_OUT = "{{ messages.__class__.__mro__ }}{{ messages[-1]['content'] }}"
TURNS = {CHATML: ["<|im_start|>", "<|im_end|>"], GEMMA: ["<start_of_turn>", "<end_of_turn>"],
         FOLDS_SYSTEM: ["<start_of_turn>", "<end_of_turn>"],
         LLAMA3: ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]}  # fmt: skip
