"""Chat templates that a stranger might write."""

import random

_GOOD = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' ~ m.content|trim ~ ' [/INST]' }}"
    "{% elif m.role == 'system' %}{{ '<<SYS>>' ~ m.content }}{% else %}{{ ' ' ~ m.content ~ eos_token }}{% endif %}{% endfor %}",
    "{% set ns = namespace(found=false) %}{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{% set ns.found = true %}{% endfor %}"
    "{% generation %}{{ ns.found }}{% endgeneration %}",
    "{% macro turn(m) %}{{ m.role }}: {{ m.content }}{% endmacro %}{% for m in messages %}{{ turn(m) }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: <think>{% endif %}",
)
_PIECES = (
    "{{ 1 / 0 }}",
    "{{ 'x' * 10**9 }}",
    "{{ 'x' * 10**7 }}",
    "{{ range(10**9) }}",
    "{{ [0] * 10**9 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'y' * 1000 }}{% endfor %}",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{{ raise_exception('no\nerror: two lines') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('id') }}",
    "{{ messages.append(1) }}",
    "{{ messages|map('nothing')|list }}",
    "{{ messages[99].content }}",
    "{{ undefined_name.more }}",
    "{% include '/etc/passwd' %}",
    "{% import 'canary' as c %}",
    "{% extends 'x' %}",
    "{{ 'a'|center(10**8) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%s %s' % 'x' }}",
    "{{ lipsum(n=10000) }}",
    "{{ strftime_now('%' * 100000) }}",
    "{{ [1, 'a']|sort }}",
    "{{ messages|tojson(indent='x') }}",
    "{{ namespace(__class__=1) }}",
    "{{ dict(messages) }}",
    "{{ '\\ud800' }}",
    "{% break %}",
    "{% generation %}",
    "{{ ((((((((((1)))))))))) }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ joiner() }}{{ cycler() }}",
    "{{ 'x'.format_map(messages) }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{% call a() %}{% endcall %}",
    "{% raw %}",
    "{#",
    "{{ messages|batch(0)|list }}",
    "{{ messages|slice(0)|list }}",
    "{{ 'a'|int(base=99) }}",
    "{{ 'ab'|wordwrap(0) }}",
    "{{ (1, 2)|random }}",
    "{{ 1.5|round(-9999) }}",
    "{{ loop.index }}",
    "{{ 10**4000 }}{{ 10**5000 }}",
)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A good template with a piece in it that is not, a bit of another one, or characters changed."""
    text = rng.choice((data.decode(), *_GOOD))
    for _ in range(rng.choice((1, 1, 2))):
        at, kind = rng.randrange(len(text) + 1), rng.random()
        if kind < 0.4:
            text = text[:at] + rng.choice(_PIECES) + text[at:]
        elif kind < 0.6:
            other = rng.choice(_GOOD)
            start = rng.randrange(len(other))
            text = text[:at] + other[start : start + rng.randrange(1, 60)] + text[at:]
        elif kind < 0.85:
            text = text[:at] + text[at + rng.randrange(1, 12) :]
        else:
            text = text[:at] + rng.choice("{}%#'\"|.()[]~-+*/ \n\x00é") + text[at:]
    return text.encode()
