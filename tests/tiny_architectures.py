"""Sizes at which architectures of transformers have a few thousand weights."""

from __future__ import annotations

from typing import Any

USUAL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 128,
}
_NO_HEAD_DIM = {name: value for name, value in USUAL.items() if name != "head_dim"}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
_LINEAR_ATTENTION = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_MAMBA_LAYERS = {
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 4,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
_SLIDING_AND_FULL = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
_SLIDING_AND_SHARED = {
    "num_hidden_layers": 3,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "num_kv_shared_layers": 1,
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 20,
}
_TEXT = {**USUAL, "vocab_size": 20, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
_QWEN_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 16}
_QWEN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 0]}

SIZES: dict[str, dict[str, Any]] = {
    "bamba": {**_NO_HEAD_DIM, **_MAMBA_LAYERS, "attn_layer_indices": [1]},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 4, "seq_length": 128},
    "cohere2": {**_NO_HEAD_DIM, **_SLIDING_AND_FULL, "logit_scale": 1.0},
    "deepseek_v3": {
        **_NO_HEAD_DIM,
        **_EXPERTS,
        "num_key_value_heads": 4,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 4,
    },
    "falcon_h1": {**USUAL, **_MAMBA_LAYERS, "mamba_d_ssm": 32},
    "gemma2": {**USUAL, **_SLIDING_AND_FULL, "query_pre_attn_scalar": 4},
    "gemma3": {"text_config": {**_TEXT, **_SLIDING_AND_FULL}, "vision_config": _VISION, "mm_tokens_per_image": 4},
    "gemma3_text": {
        **USUAL,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 4,
    },
    "gemma3n_text": {**USUAL, **_SLIDING_AND_SHARED, "laurel_rank": 4, "activation_sparsity_pattern": None},
    "gemma4_text": {**USUAL, **_SLIDING_AND_SHARED, "global_head_dim": 8, "num_global_key_value_heads": 2},
    "glm4_moe": {**USUAL, **_EXPERTS},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": {**USUAL, "rotary_pct": 0.5},
    "gpt_oss": {**USUAL, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    "granitemoehybrid": {
        **_NO_HEAD_DIM,
        **_MAMBA_LAYERS,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
        "shared_intermediate_size": 24,
    },
    "jamba": {
        **_NO_HEAD_DIM,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 4,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "lfm2": {**_NO_HEAD_DIM, "layer_types": ["conv", "full_attention"]},
    "llama4_text": {
        **USUAL,
        "num_local_experts": 4,
        "intermediate_size_mlp": 24,
        "num_experts_per_tok": 1,
        "attention_chunk_size": 4,
        "interleave_moe_layer_step": 2,
    },
    "mamba": {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "time_step_rank": 4},
    "mamba2": {
        "hidden_size": 16,
        "num_heads": 4,
        "head_dim": 8,
        "state_size": 4,
        "n_groups": 1,
        "chunk_size": 8,
        "num_hidden_layers": 2,
    },
    "minimax": {**USUAL, **_EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 8},
    "mistral3": {
        "text_config": {**_TEXT, "model_type": "mistral", "sliding_window": None},
        "vision_config": {**_VISION, "model_type": "pixtral"},
    },
    "mixtral": {**USUAL, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mpt": {"d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 128},
    "nemotron_h": {
        **USUAL,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 4,
        "n_groups": 1,
        "chunk_size": 8,
        "layers_block_type": ["mamba", "attention"],
    },
    "opt": {**USUAL, "ffn_dim": 24, "word_embed_proj_dim": 16},
    "phi3": {**_NO_HEAD_DIM, "original_max_position_embeddings": 128},
    "qwen2_5_vl": {"text_config": {**_TEXT, "rope_parameters": _QWEN_ROPE}, "vision_config": _QWEN_VISION},
    "qwen2_moe": {
        **USUAL,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "shared_expert_intermediate_size": 12,
        "decoder_sparse_step": 1,
    },
    "qwen3_moe": {**USUAL, **_EXPERTS},
    "qwen3_next": {**USUAL, **_LINEAR_ATTENTION, **_EXPERTS, "shared_expert_intermediate_size": 12},
    "qwen3_vl": {
        "text_config": {**_TEXT, "rope_parameters": _QWEN_ROPE},
        "vision_config": {**_QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    },
    "recurrent_gemma": {
        **USUAL,
        "num_hidden_layers": 3,
        "lru_width": 16,
        "sliding_window": 64,
        "layers_block_types": ["recurrent", "recurrent", "attention"],
    },
    "rwkv": {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2, "context_length": 128},
    "xlstm": {"hidden_size": 128, "num_hidden_layers": 2, "num_heads": 2, "num_blocks": 2, "chunk_size": 8},
    "zamba2": {
        **_NO_HEAD_DIM,
        "mamba_d_state": 4,
        "mamba_ngroups": 1,
        "n_mamba_heads": 4,
        "mamba_headdim": 8,
        "chunk_size": 8,
        "num_mem_blocks": 1,
        "adapter_rank": 4,
        "layers_block_type": ["mamba", "hybrid"],
    },
}
"""Where they differ from `USUAL`."""

READS_IMAGES = frozenset({"mistral3", "qwen2_5_vl", "qwen3_vl"})
"""Architectures that transformers has no class for without images."""
