"""ImageNet at 256x256, class-conditional: the four paradigms on 16x16 tokens of published autoencoders, at the sizes, batches and
rates that BUDGET deserves by the laws in bench/laws/images.json (docs/dial.md compares them with published recipes).

Continuous tokens are those of MAR's KL-16, and for a DiT of the published kind Stable Diffusion's KL-8 grouped 2x2; codes are
those of LlamaGen's VQ-16. Their checkpoints lie at checkpoints/kl16.ckpt (LTH14/mar) and checkpoints/vq_ds16_c2i.pt (LlamaGen).
Base rates are the published ones, not searched here.

`make plan EXPERIMENT=experiments/imagenet256.py` needs neither data nor weights.
"""

from bench.config import (
    Evaluation,
    Experiment,
    ImageData,
    JudgeConfig,
    Ladder,
    Method,
    PretrainedConfig,
    Recipe,
    TokenizerConfig,
    grid,
)

NUM_IMAGES = 1_281_167
DATA = ImageData(
    name="imagenet",
    source="imagefolder",
    condition="class",
    num_classes=1000,
    resolution=256,
    autoencoders={
        "kl-16": PretrainedConfig(architecture="mar-kl16", source="checkpoints/kl16.ckpt", stride=16, num_channels=16),
        "kl-8": PretrainedConfig(architecture="AutoencoderKL", source="stabilityai/sd-vae-ft-mse", stride=8, num_channels=4),
        "vq-16": PretrainedConfig(
            architecture="llamagen-vq16", source="checkpoints/vq_ds16_c2i.pt", stride=16, num_channels=8, num_codes=16_384
        ),
    },
    tokenizers={"kl-8-grouped": TokenizerConfig(part="kl-8", group=2)},
    judge=JudgeConfig(features="inception"),
)
RECIPE = Recipe(
    batch_size=256, warmup_steps=200, weight_decay=0.02, precision="bf16", num_training_images=NUM_IMAGES, gradient_clip=1.0
)
EVALUATION = Evaluation(
    num_samples=10_000, num_validation=2_000, num_reference=10_000, num_held_out=0, throughput_batches=(16, 64)
)
"""FID of 10,000 images is above that of the papers' 50,000; `num_samples=50_000` and the ADM statistics give theirs."""
GUIDANCE = (1.0, 1.5, 3.0)
MAR_OPTIONS = {"num_buffer_slots": 64, "head_options": {"relative_width": 1.25, "depth": 8}}
"""MAR-L's head, and as wide relative to the backbone at every size (Li et al. 2024, appendix B: 1.33, 1.25 and 1.2)."""
METHODS = (
    Method(paradigm="diffusion", tokenizer="kl-16", settings=grid(steps=(50, 250), guidance=GUIDANCE)),
    Method(
        paradigm="diffusion",
        label="diffusion-kl-8",
        tokenizer="kl-8-grouped",
        settings=grid(steps=(50, 250), guidance=GUIDANCE),
    ),
    Method(paradigm="next-token", tokenizer="vq-16", settings=grid(temperature=(1.0, 0.9), guidance=GUIDANCE)),
    Method(
        paradigm="masked-token",
        tokenizer="vq-16",
        settings=grid(steps=(16, 64), guidance=GUIDANCE),
    ),
    Method(
        paradigm="mar",
        tokenizer="kl-16",
        options=MAR_OPTIONS,
        settings=grid(steps=(16, 64), guidance=GUIDANCE),
    ),
)

EXPERIMENT = Experiment(
    name="imagenet256",
    data=DATA,
    methods=METHODS,
    ladder=Ladder(),
    budget=1e20,
    recipe=RECIPE,
    evaluation=EVALUATION,
)
