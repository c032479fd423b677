"""A real tokenizer small enough to make in a test: byte-level BPE with a ChatML-like template."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_SPECIAL = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>")
_TEXT = "the cat sat on the mat and the user asked the assistant how it was that the system knew the answer"
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The shared tokenizer: 300 entries at most, pad 0, bos 1, eos 2. Do not change it; ``copy.deepcopy`` it first."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, min_frequency=2, show_progress=False
    )
    bpe.train_from_iterator([_TEXT] * 2, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=_TEMPLATE,
        name_or_path="tiny",
    )
