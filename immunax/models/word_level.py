"""A tokenizer of whole words, for a model that is made here.

Every word of a closed vocabulary and every punctuation mark is one token; anything else is ``<unk>``. The template puts
a role's marker before each turn and ``<|end|>`` after an answer, so that a dialog costs three tokens beside its words.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, EOS, END = "<pad>", "<unk>", "<eos>", "<|end|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
_SPECIAL = (PAD, UNKNOWN, EOS, END, *_ROLES)
_PIECE = r"[\p{L}\p{N}']+|[^\s\p{L}\p{N}']"
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def word_level(texts: Iterable[str], max_length: int) -> PreTrainedTokenizerFast:
    """The tokenizer that knows the words of some texts.

    Args:
      texts: all that is ever to be written.
      max_length: the model's context, tokens.

    Returns:
      A tokenizer with a chat template; ids are pad 0, unk 1, eos 2, end of turn 3, the roles, then the words in the
      order of the alphabet. Decoding puts spaces between words, and none before ``. , ? !``; around other punctuation
      it does.
    """
    cut = pre_tokenizers.Split(Regex(_PIECE), behavior="removed", invert=True)
    words = sorted({word for text in texts for word, _ in cut.pre_tokenize_str(text)})
    vocabulary = {word: number for number, word in enumerate((*_SPECIAL, *words))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = cut
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=EOS,
        extra_special_tokens=[END, *_ROLES],
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
        name_or_path="word-level",
    )
