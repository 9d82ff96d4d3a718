"""llama.cpp's own server over a model that is made on the spot: `llama_cpp.py FOLDER` prints where it listens.

The model has random weights, always the same, and a tokenizer of bytes and a few words. What it says means nothing; how
it is streamed, counted, stopped and gone on with is llama.cpp's. Runs in the environment of tests/interop.
"""

import signal
import sys
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

WIDTH, LAYERS, HEADS, INNER, CONTEXT = 64, 2, 4, 128, 4096
SLOTS = 4
WORDS = (
    "the river runs slow and bright over stone toward sea a gate holds back what rain has brought über naïve 水 流れ"
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if not loop.last or m.role != 'assistant' %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _characters() -> dict[int, str]:
    """GPT-2's stand-ins for bytes, each a character that can be printed."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + at) for at, byte in enumerate(others)}


def write_model(path: Path) -> None:
    """A model in the shape of Llama."""
    characters, random = _characters(), np.random.default_rng(7)
    words = ["".join(characters[byte] for byte in f" {word}".encode()) for word in WORDS.split()]
    tokens = [*(characters[byte] for byte in range(256)), *words, "<|im_start|>", "<|im_end|>"]
    model = gguf.GGUFWriter(path, "llama")
    model.add_context_length(CONTEXT)
    model.add_embedding_length(WIDTH)
    model.add_block_count(LAYERS)
    model.add_feed_forward_length(INNER)
    model.add_head_count(HEADS)
    model.add_head_count_kv(HEADS)
    model.add_layer_norm_rms_eps(1e-5)
    model.add_vocab_size(len(tokens))
    model.add_rope_dimension_count(WIDTH // HEADS)
    model.add_tokenizer_model("gpt2")
    model.add_tokenizer_pre("gpt-2")
    model.add_token_list(tokens)
    model.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 2) + [gguf.TokenType.CONTROL] * 2)
    model.add_token_merges(["a b"])
    model.add_bos_token_id(len(tokens) - 2)
    model.add_eos_token_id(len(tokens) - 1)
    model.add_chat_template(TEMPLATE)

    def tensor(name: str, *shape: int, scale: float = 0.2) -> None:
        model.add_tensor(f"{name}.weight", (random.standard_normal(shape) * scale).astype(np.float32))

    tensor("token_embd", len(tokens), WIDTH, scale=1.0)
    says = random.standard_normal((len(tokens), WIDTH)).astype(np.float32)
    says[:256] = 0  # words, no bytes
    says[-2:] *= 0.3  # and seldom an end
    model.add_tensor("output.weight", says)
    model.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            model.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{layer}.{name}", WIDTH, WIDTH)
        for name, shape in {"gate": (INNER, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}.items():
            tensor(f"blk.{layer}.ffn_{name}", *shape)
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()


def main() -> None:
    """Serves until it is told to stop."""
    path = Path(sys.argv[1]) / "tiny.gguf"
    write_model(path)
    options = xllamacpp.CommonParams()
    options.model.path = str(path)
    options.n_ctx, options.n_parallel = CONTEXT, SLOTS
    options.hostnames, options.port = ["127.0.0.1"], 0
    options.cpuparams.n_threads = 1
    options.warmup = False
    server = xllamacpp.Server(options)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
