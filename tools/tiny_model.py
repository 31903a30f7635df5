"""Write a tiny random Llama with its own tokenizer and chat template: `python tiny_model.py DIRECTORY`.

Runs inside the environment of the real vLLM and downloads nothing. The weights are seeded, so greedy output is the
same on every machine that rounds alike.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 1024
POSITIONS = 2048
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
END = "<|end|>"
SPECIAL = [END, "<|system|>", "<|user|>", "<|assistant|>"]
CORPUS = [
    "The engineer on call looks at the board and sees what every engine is doing.",
    "A request waits, is scheduled, fills its blocks, streams its tokens and frees its blocks.",
    "0 1 2 3 4 5 6 7 8 9 10 20 30 40 50 60 70 80 90 100 1000",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: every byte string has tokens, so no prompt is foreign to it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def model(made: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a Llama with seeded random weights in float32 that speaks exactly the tokens of `made`."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(made),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=None,
        eos_token_id=made.eos_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def main(directory: Path) -> None:
    """Write model, tokenizer and chat template to `directory`, which is made when missing."""
    made = tokenizer()
    made.save_pretrained(directory)
    model(made).save_pretrained(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
