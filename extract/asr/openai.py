"""OpenAI's Whisper checkpoints (`.pt`) as models of transformers: the same weights under other names.

transformers had a script for it; what is installed has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

FUSED, TIED = "sdpa", "proj_out.weight"
# Of OpenAI's vocabularies: the smallest that knows other languages, and what is no language in it.
MULTILINGUAL_TOKENS, OTHER_TOKENS = 51865, 51765
# What transformers calls the parts of a block, and what stands beside the blocks; applied one after the other.
RENAMES = (
    (r"^(encoder|decoder)\.blocks\.", r"model.\1.layers."),
    (r"^encoder\.ln_post\.", "model.encoder.layer_norm."),
    (r"^decoder\.ln\.", "model.decoder.layer_norm."),
    (r"^decoder\.token_embedding\.", "model.decoder.embed_tokens."),
    (r"^(encoder|decoder)\.positional_embedding$", r"model.\1.embed_positions.weight"),
    (r"^encoder\.conv", "model.encoder.conv"),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.attn\.", ".self_attn."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"\.out\.", ".out_proj."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
)


def renamed(name: str) -> str:
    """What transformers calls a weight of OpenAI's."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


class Refused(ValueError):
    """A checkpoint that can be read, and is not what is needed."""


@contextmanager
def quiet() -> Iterator[None]:
    """transformers has much to say about settings of Whisper's that it reads itself, and draws bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def from_openai(file: Path) -> tuple[Any, Any]:
    """Network in float32 and tokenizer from OpenAI's checkpoint file.

    Raises:
        Refused: its weights are not those of the network that it describes, or did not arrive.
        Exception: it is no such file.
    """
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    held = torch.load(file, map_location="cpu", weights_only=True)
    sizes = held["dims"]
    vocabulary = _vocabulary(sizes)
    config = WhisperConfig(**_configuration(sizes, vocabulary), attn_implementation=FUSED)
    network = WhisperForConditionalGeneration(config)
    weights = {renamed(name): tensor for name, tensor in held["model_state_dict"].items()}
    found = network.load_state_dict(weights, strict=False)
    loaded = network.state_dict()
    lost = [name for name in weights if name not in loaded or not torch.equal(weights[name].float(), loaded[name])]
    missing = [name for name in found.missing_keys if name != TIED]
    if missing or lost:
        raise Refused(f"asr.model {file} lacks weights of a whole Whisper: {', '.join([*missing, *lost][:3])}")
    heads = upper_heads(sizes["n_text_layer"], sizes["n_text_head"])
    network.generation_config = _generation(sizes, vocabulary, heads)
    return network, _tokenizer(vocabulary)


def upper_heads(layers: int, heads: int) -> list[list[int]]:
    """Layer and head of the decoder's attention that is taken to follow speech: all of the upper half, as OpenAI's
    program takes them of a checkpoint that it does not know by name."""
    return [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)]


def _vocabulary(sizes: Mapping[str, int]) -> Any:
    """OpenAI's own, by number of tokens."""
    from whisper.tokenizer import get_tokenizer

    multilingual = sizes["n_vocab"] >= MULTILINGUAL_TOKENS
    return get_tokenizer(multilingual, num_languages=sizes["n_vocab"] - OTHER_TOKENS - int(multilingual))


def _configuration(sizes: Mapping[str, int], vocabulary: Any) -> dict[str, Any]:
    audio, text = sizes["n_audio_state"], sizes["n_text_state"]
    assert audio == text, "one width for both halves, in all of Whisper's sizes"
    end = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), vocabulary.eot)
    return {
        "vocab_size": sizes["n_vocab"],
        "num_mel_bins": sizes["n_mels"],
        "d_model": audio,
        "encoder_layers": sizes["n_audio_layer"],
        "encoder_attention_heads": sizes["n_audio_head"],
        "encoder_ffn_dim": 4 * audio,
        "decoder_layers": sizes["n_text_layer"],
        "decoder_attention_heads": sizes["n_text_head"],
        "decoder_ffn_dim": 4 * text,
        "max_source_positions": sizes["n_audio_ctx"],
        "max_target_positions": sizes["n_text_ctx"],
        "decoder_start_token_id": vocabulary.sot,
        **end,
    }


def _generation(sizes: Mapping[str, int], vocabulary: Any, heads: list[list[int]]) -> Any:
    """What OpenAI's program lets its decoder write, in transformers' words."""
    from transformers import GenerationConfig

    specials = (vocabulary.transcribe, vocabulary.translate, vocabulary.sot, vocabulary.sot_prev, vocabulary.sot_lm)
    multilingual = vocabulary.encoding.name.startswith("multilingual")
    spoken = {
        "lang_to_id": {
            f"<|{code}|>": token
            for code, token in zip(vocabulary.all_language_codes, vocabulary.all_language_tokens, strict=True)
        },
        "task_to_id": {"transcribe": vocabulary.transcribe, "translate": vocabulary.translate},
    }
    return GenerationConfig(
        decoder_start_token_id=vocabulary.sot,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), vocabulary.eot),
        max_length=sizes["n_text_ctx"],
        suppress_tokens=sorted({*vocabulary.non_speech_tokens, *specials, vocabulary.no_speech}),
        begin_suppress_tokens=[vocabulary.encode(" ")[0], vocabulary.eot],
        no_timestamps_token_id=vocabulary.no_timestamps,
        prev_sot_token_id=vocabulary.sot_prev,
        max_initial_timestamp_index=50,
        return_timestamps=False,
        is_multilingual=multilingual,
        alignment_heads=heads,
        **(spoken if multilingual else {}),
    )


def _tokenizer(vocabulary: Any) -> Any:
    import whisper
    from transformers import WhisperTokenizer
    from transformers.convert_slow_tokenizer import TikTokenConverter

    file = Path(whisper.__file__).parent / "assets" / vocabulary.encoding.name
    words, merges = TikTokenConverter().extract_vocab_merges_from_model(str(file))
    special = sorted(vocabulary.special_tokens, key=vocabulary.special_tokens.__getitem__)
    tokenizer = WhisperTokenizer({**words, special[0]: len(words)}, merges)
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    return tokenizer
