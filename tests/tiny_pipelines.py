"""Tiny, random, stock diffusers pipelines, built offline and saved as folders for the tests of teacher adapters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tiny_unet import tiny_unet

HIDDEN = 16  # the width of every text encoder but T5
T5_HIDDEN = 32  # SD3 pads two CLIPs side by side to T5's width
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
IF_STEPS = {
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "learned_range",
    "prediction_type": "epsilon",
    "clip_sample": True,
    "thresholding": True,
    "dynamic_thresholding_ratio": 0.95,
}
PIECES = ["the", "a", "red", "blue", "cat", "dog", "of", "photo"]  # words that are one token


def save_class_unet(folder: Path, classes: int = 4, seed: int = 0, channels: int = 3, **scheduler_fields) -> Path:
    """A DDPM pipeline whose UNet2DModel takes class labels. 8×8 pixels."""
    from diffusers import DDPMPipeline, DDPMScheduler

    unet = stirred(tiny_unet(channels, seed, num_class_embeds=classes), 0.1)
    return saved(DDPMPipeline(unet, DDPMScheduler(**scheduler_fields)), folder)


def save_dit(folder: Path, classes: int = 5, learned: bool = True, seed: int = 0, **scheduler_fields) -> Path:
    """A DiTPipeline, as facebook/DiT-XL-2-256: 4×8×8 latents, 16×16 pixels; ``learned``: it answers a variance too.

    The pipeline's own null class is 1000 whatever ``classes`` is: with fewer it runs without guidance only.
    """
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(seed)
    transformer = DiTTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=8 if learned else 4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_embeds_ada_norm=classes,
        norm_type="ada_norm_zero",
        activation_fn="gelu-approximate",
        attention_bias=True,
    )
    fields = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False}
    scheduler = DDIMScheduler(**{**fields, **scheduler_fields})
    names = {index: f"class {index}, kind {index}" for index in range(classes)}
    pipeline = DiTPipeline(stirred(transformer, 0.1), tiny_vae(), scheduler)
    pipeline.register_to_config(id2label=names)  # diffusers does not, but the published folder has it
    return saved(pipeline, folder)


def save_sd(folder: Path, prediction_type: str = "epsilon", seed: int = 0, **scheduler_fields) -> Path:
    """A StableDiffusionPipeline, as Stable Diffusion 1.5: 4×8×8 latents, 16×16 pixels."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    torch.manual_seed(seed)
    fields = {**SD_BETAS, "prediction_type": prediction_type, "skip_prk_steps": True, "set_alpha_to_one": False}
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_clip(),
        tokenizer=clip_tokenizer(),
        unet=tiny_text_unet(),
        scheduler=PNDMScheduler(**{**fields, **scheduler_fields}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return saved(pipeline, folder)


def save_sdxl(folder: Path, seed: int = 0, **scheduler_fields) -> Path:
    """A StableDiffusionXLPipeline with both encoders: 4×8×8 latents, 16×16 pixels."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    torch.manual_seed(seed)
    time_width = 8
    pipeline = StableDiffusionXLPipeline(
        vae=tiny_vae(scaling_factor=0.13025, force_upcast=True),
        text_encoder=tiny_clip(),
        text_encoder_2=tiny_clip(projected=True, hidden_act="gelu"),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(pad="!"),
        unet=tiny_text_unet(
            cross_attention_dim=2 * HIDDEN,
            addition_embed_type="text_time",
            addition_time_embed_dim=time_width,
            projection_class_embeddings_input_dim=6 * time_width + HIDDEN,
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(**{**SD_BETAS, "timestep_spacing": "leading", **scheduler_fields}),
        force_zeros_for_empty_prompt=True,
    )
    return saved(pipeline, folder)


def save_if(folder: Path, seed: int = 0, **scheduler_fields) -> Path:
    """An IFPipeline, as DeepFloyd IF's first stage: 3×8×8 pixels, the answer has a variance too."""
    from diffusers import DDPMScheduler, IFPipeline

    torch.manual_seed(seed)
    pipeline = IFPipeline(
        tokenizer=t5_tokenizer(77),
        text_encoder=tiny_t5(),
        unet=tiny_if_unet(),
        scheduler=DDPMScheduler(**{**IF_STEPS, "sample_max_value": 1.5, **scheduler_fields}),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    return saved(pipeline, folder)


def save_if_sr(folder: Path, seed: int = 0, size: int = 16, **scheduler_fields) -> Path:
    """An IFSuperResolutionPipeline, as DeepFloyd IF's second stage, for images of ``size`` pixels.

    With the seed of ``save_if`` the text encoder is the same too.
    """
    from diffusers import DDPMScheduler, IFSuperResolutionPipeline

    torch.manual_seed(seed)
    pipeline = IFSuperResolutionPipeline(
        tokenizer=t5_tokenizer(77),
        text_encoder=tiny_t5(),
        unet=tiny_if_unet(sample_size=size, in_channels=6, class_embed_type="timestep"),
        scheduler=DDPMScheduler(**{**IF_STEPS, "sample_max_value": 1.0, **scheduler_fields}),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    return saved(pipeline, folder)


def save_sd3(folder: Path, seed: int = 0, **scheduler_fields) -> Path:
    """A StableDiffusion3Pipeline with its three encoders: 16×8×8 latents, 16×16 pixels."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=T5_HIDDEN,
        caption_projection_dim=16,
        pooled_projection_dim=2 * HIDDEN,
        pos_embed_max_size=12,
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=stirred(transformer, 0.15),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler_fields}),
        vae=tiny_flow_vae(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=tiny_clip(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=tiny_clip(projected=True, hidden_act="gelu"),
        tokenizer_2=clip_tokenizer(pad="!"),
        text_encoder_3=tiny_t5(),
        tokenizer_3=t5_tokenizer(),
    )
    return saved(pipeline, folder)


def save_flux(folder: Path, guidance_embeds: bool = True, seed: int = 0, **scheduler_fields) -> Path:
    """A FluxPipeline, as FLUX.1-dev (or, without ``guidance_embeds``, the network of schnell).

    16×8×8 latents, which are 16 tokens of 64; 16×16 pixels, which a call must ask for: its default is 256.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=T5_HIDDEN,
        pooled_projection_dim=HIDDEN,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    fields = {"shift": 3.0, "use_dynamic_shifting": True, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    pipeline = FluxPipeline(
        transformer=stirred(transformer, 0.15),
        scheduler=FlowMatchEulerDiscreteScheduler(**{**fields, **scheduler_fields}),
        vae=tiny_flow_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=tiny_clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=tiny_t5(),
        tokenizer_2=t5_tokenizer(),
    )
    return saved(pipeline, folder)


def save_lora(folder: Path, pipeline_folder: Path, rank: int = 2, seed: int = 0, scale: float = 0.3) -> Path:
    """A LoRA of the UNet of ``save_sd``, as diffusers writes it; ``scale``: the size of its B. The file's path."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    torch.manual_seed(seed)
    unet = StableDiffusionPipeline.from_pretrained(pipeline_folder).unet
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return Path(folder) / "pytorch_lora_weights.safetensors"


def save_single_file(path: Path, pipeline_folder: Path) -> Path:
    """The pipeline of ``save_sd`` as one file in Stable Diffusion's first format. The path."""
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import save_file

    pipeline = StableDiffusionPipeline.from_pretrained(pipeline_folder)
    parts = (
        ("model.diffusion_model.", pipeline.unet, UNET_NAMES),
        ("first_stage_model.", pipeline.vae, VAE_NAMES),
        ("cond_stage_model.transformer.text_model.", pipeline.text_encoder, {r"^text_model\.": ""}),
    )
    weights = {}
    for prefix, module, names in parts:
        for name, weight in module.state_dict().items():
            for pattern, text in names.items():
                name = re.sub(pattern, text, name)
            weights[prefix + name] = weight.contiguous()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return Path(path)


# Patterns of diffusers' names and the first format's, one after another, for the two levels of one layer used here.
UNET_NAMES = {
    r"^time_embedding\.linear_1": "time_embed.0",
    r"^time_embedding\.linear_2": "time_embed.2",
    r"^conv_in": "input_blocks.0.0",
    r"^conv_norm_out": "out.0",
    r"^conv_out": "out.2",
    r"^down_blocks\.0\.resnets\.0": "input_blocks.1.0",
    r"^down_blocks\.0\.attentions\.0": "input_blocks.1.1",
    r"^down_blocks\.0\.downsamplers\.0\.conv": "input_blocks.2.0.op",
    r"^down_blocks\.1\.resnets\.0": "input_blocks.3.0",
    r"^mid_block\.resnets\.0": "middle_block.0",
    r"^mid_block\.attentions\.0": "middle_block.1",
    r"^mid_block\.resnets\.1": "middle_block.2",
    r"^up_blocks\.0\.resnets\.(\d)": r"output_blocks.\1.0",
    r"^up_blocks\.0\.upsamplers\.0": "output_blocks.1.1",
    r"^up_blocks\.1\.resnets\.0": "output_blocks.2.0",
    r"^up_blocks\.1\.resnets\.1": "output_blocks.3.0",
    r"^up_blocks\.1\.attentions\.0": "output_blocks.2.1",
    r"^up_blocks\.1\.attentions\.1": "output_blocks.3.1",
    r"^(\w+_blocks?\.[\d.]+)norm1": r"\1in_layers.0",
    r"^(\w+_blocks?\.[\d.]+)norm2": r"\1out_layers.0",
    r"conv1\.": "in_layers.2.",
    r"conv2\.": "out_layers.3.",
    r"time_emb_proj": "emb_layers.1",
    r"conv_shortcut": "skip_connection",
}
VAE_NAMES = {
    r"mid_block\.resnets\.0": "mid.block_1",
    r"mid_block\.resnets\.1": "mid.block_2",
    r"mid_block\.attentions\.0": "mid.attn_1",
    r"down_blocks\.(\d)\.resnets": r"down.\1.block",
    r"down_blocks\.(\d)\.downsamplers\.0": r"down.\1.downsample",
    r"up_blocks\.0\.(resnets|upsamplers)": r"up.1.\1",
    r"up_blocks\.1\.(resnets|upsamplers)": r"up.0.\1",
    r"up\.(\d)\.resnets": r"up.\1.block",
    r"up\.(\d)\.upsamplers\.0": r"up.\1.upsample",
    r"conv_norm_out": "norm_out",
    r"conv_shortcut": "nin_shortcut",
    r"group_norm": "norm",
    r"to_([qkv])\.": r"\1.",
    r"to_out\.0": "proj_out",
}


def tiny_text_unet(**fields):
    """A random UNet2DConditionModel, laid out as Stable Diffusion's: 4×8×8 latents."""
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": HIDDEN,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return stirred(UNet2DConditionModel(**{**config, **fields}), 0.25)


def tiny_if_unet(**fields):
    """A random UNet2DConditionModel, laid out as DeepFloyd IF's: 3×8×8 pixels, 6 channels out."""
    from diffusers import UNet2DConditionModel

    config = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 6,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "cross_attention_dim": 32,  # its group norm has 32 groups
        "cross_attention_norm": "group_norm",
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "encoder_hid_dim": T5_HIDDEN,
        "encoder_hid_dim_type": "text_proj",
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
        "resnet_time_scale_shift": "scale_shift",
        "resnet_skip_time_act": True,
        "act_fn": "gelu",
        "time_embedding_act_fn": "gelu",
    }
    return stirred(UNet2DConditionModel(**{**config, **fields}), 0.1)


def tiny_vae(**fields):
    """A random AutoencoderKL: 16×16 pixels, 4×8×8 latents."""
    from diffusers import AutoencoderKL

    config = {
        "sample_size": 16,
        "latent_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
        "norm_num_groups": 4,
        "scaling_factor": 0.18215,
    }
    return stirred(AutoencoderKL(**{**config, **fields}), 0.05)


def tiny_flow_vae(**fields):
    """A random AutoencoderKL as SD3's and Flux's: 16 latent channels, no convolutions around the latents."""
    return tiny_vae(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, **fields)


def tiny_clip(projected: bool = False, **fields):
    """A random CLIP text encoder for ``clip_tokenizer``; ``projected``: with the projection of its pooled state."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "projection_dim": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return stirred(kind(CLIPTextConfig(**{**config, **fields})), 0.3)


def clip_tokenizer(pad: str = "<|endoftext|>"):
    """A CLIP tokenizer of single bytes and the words of ``PIECES``."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges = [merge for word in PIECES for merge in merges_of(word)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *(first + last for first, last in merges)]
    ids = {token: index for index, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(ids))
        (Path(folder) / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77, pad_token=pad)


def tiny_t5():
    """A random T5 encoder for ``t5_tokenizer``."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=T5_HIDDEN,
        d_kv=8,
        d_ff=2 * T5_HIDDEN,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    return stirred(T5EncoderModel(config), 0.1)


def t5_tokenizer(length: int = 512):
    """A T5 tokenizer of printable characters and the words of ``PIECES``."""
    from transformers import T5TokenizerFast

    letters = [(chr(code), -5.0) for code in range(33, 127)]
    words = [(f"▁{word}", -1.0) for word in PIECES]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters, *words]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=length)


def merges_of(word: str) -> list[tuple[str, str]]:
    """The byte pairs that make one token of a word, from its left to its right."""
    parts = [*word[:-1], f"{word[-1]}</w>"]
    return [("".join(parts[:end]), parts[end]) for end in range(1, len(parts))]


def stirred(module: torch.nn.Module, scale: float) -> torch.nn.Module:
    """The module with noise on every parameter: nothing stays at a zero or a one, so every input counts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=scale)
    return module.eval()


def saved(pipeline, folder: Path) -> Path:
    """Save the pipeline; its folder."""
    pipeline.save_pretrained(folder)
    return Path(folder)


CLIP_SIDE = 16
CLIP_SCALE = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25]}


def save_clip_model(path: Path) -> Path:
    """A tiny random CLIPModel as it is published: config, safetensors, tokenizer and preprocessor."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    layers = {"hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**layers, **ends, "vocab_size": len(tokenizer)}
    vision = {**layers, "image_size": CLIP_SIDE, "patch_size": 8}
    model = stirred(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)), 0.3)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    words = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": CLIP_SIDE}, **CLIP_SCALE}
    (path / "preprocessor_config.json").write_text(json.dumps(words))
    return path
