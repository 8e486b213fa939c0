"""Sizes of mixtures of experts with a few thousand weights, for every way in which their layers are laid out."""

from __future__ import annotations

from typing import Any

_EXPERTS = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 128,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
}
_GROUPED = {"n_group": 1, "topk_group": 1}
_LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
}
_DELTA = {
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "layer_types": ["linear_attention", "full_attention"],
    "shared_expert_intermediate_size": 12,
}
_FULL = {"layer_types": ["full_attention"] * 2}

MIXTURES: dict[str, dict[str, Any]] = {
    "afmoe": {"num_shared_experts": 1, "num_dense_layers": 1, "sliding_window": 64, **_FULL},
    "deepseek_v2": {"n_shared_experts": 1, "first_k_dense_replace": 1, **_GROUPED, **_LATENT},
    "deepseek_v3": {"n_shared_experts": 1, "first_k_dense_replace": 1, **_GROUPED, **_LATENT},
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 1, **_GROUPED},
    "ernie4_5_moe": {
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
        "moe_layer_end_index": 1,
    },
    "exaone_moe": {
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
        "mlp_layer_types": ["dense", "sparse"],
        "sliding_window": 64,
        **_GROUPED,
        **_FULL,
    },
    "flex_olmo": {},
    "glm4_moe": {"n_shared_experts": 1, "first_k_dense_replace": 1, **_GROUPED},
    "glm4_moe_lite": {"n_shared_experts": 1, "mlp_layer_types": ["dense", "sparse"], **_GROUPED, **_LATENT},
    "gpt_oss": {"sliding_window": 64, **_FULL},
    "granitemoeshared": {"shared_intermediate_size": 12},
    "hunyuan_v1_moe": {"moe_topk": 2},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "llama4_text": {
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 24,
        "moe_layers": [1],
        "no_rope_layers": [1, 1],
        "attention_chunk_size": 64,
        **_FULL,
    },
    "minimax": {"layer_types": ["full_attention", "linear_attention"], "block_size": 8},
    "mixtral": {},
    "olmoe": {},
    "phimoe": {},
    "qwen2_moe": {"shared_expert_intermediate_size": 12, "decoder_sparse_step": 1, "mlp_only_layers": [0]},
    "qwen3_5_moe_text": _DELTA,
    "qwen3_moe": {"decoder_sparse_step": 1, "mlp_only_layers": [0]},
    "qwen3_next": _DELTA,
    "solar_open": {"n_shared_experts": 1, **_GROUPED},
}
MIXTURES = {name: {**_EXPERTS, **settings} for name, settings in MIXTURES.items()}
