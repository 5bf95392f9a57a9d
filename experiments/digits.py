"""Real images that every machine has: scikit-learn's 1,797 handwritten digits, 8x8 pixels, class-conditional.

The whole path of a data set of images in minutes on two CPU cores: `datasets` rows, the suite's own KL and FSQ twins on 4x4
tokens, labels as conditions, and its own classifier as judge (FID in its features; accuracy = share of images read as the digit
asked for). All three were made by `paradigm-bench prepare --experiment digits` and ship with the package. Three quarters of the
images train, each about 60 times at the top budget, so what is compared here is learning from few images.

Learning rates: the best FID of five equal trials each (`digits_learning_rates.py`), all inside their grid.
"""

from bench.config import AutoencoderConfig, Evaluation, Experiment, ImageData, JudgeConfig, Method, Recipe, Size, grid

GRID = {"resolution": 8, "patch": 2, "width": 64, "num_decoder_blocks": 2}
DATA = ImageData(
    name="digits",
    source="digits",
    split="train",
    evaluation_split="test",
    condition="class",
    num_classes=10,
    resolution=8,
    flip=False,
    autoencoders={
        "kl": AutoencoderConfig(bottleneck="kl", channels=4, **GRID),
        "fsq": AutoencoderConfig(bottleneck="fsq", levels=(8, 8, 4), **GRID),
    },
    judge=JudgeConfig(features="classifier"),
)
GUIDANCE, TEMPERATURES = (1.0, 1.5, 2.5), (1.0, 0.7)
MAR_HEAD = {
    "width": 64,
    "depth": 2,
    "steps": 25,
    "time_features": 64,
    "prediction": "velocity",
    "noise_shift": 2.0,
    "multiplier": 1,
    "condition_at_input": True,
}
"""As in experiments/shapes.py; the shift is the square root of the 4 channels."""
MAR_SAMPLER = {"head_options": {"sampler": "probability-flow", "steps": 10}}

EXPERIMENT = Experiment(
    name="digits",
    flop_rule="meta-v1",
    data=DATA,
    methods=(
        Method(
            paradigm="diffusion",
            tokenizer="kl",
            learning_rates=(4e-3,),
            settings=grid(steps=(12,), temperature=TEMPERATURES, guidance=GUIDANCE),
        ),
        Method(
            paradigm="next-token",
            tokenizer="fsq",
            learning_rates=(8e-3,),
            settings=grid(temperature=TEMPERATURES, guidance=GUIDANCE),
        ),
        Method(
            paradigm="masked-token",
            tokenizer="fsq",
            learning_rates=(4e-3,),
            settings=grid(steps=(12,), temperature=TEMPERATURES, guidance=GUIDANCE),
        ),
        Method(
            paradigm="mar",
            tokenizer="kl",
            learning_rates=(2e-3,),
            options={"head_options": MAR_HEAD},
            settings=grid(steps=(8,), temperature=TEMPERATURES, guidance=GUIDANCE, options=(MAR_SAMPLER,)),
        ),
    ),
    sizes=(Size(width=48, depth=4, num_heads=2),),
    budget=1e12,
    rungs=(0.1, 0.3, 1.0),
    num_seeds=((1, 1, 2),),
    recipe=Recipe(batch_size=32, precision="fp32", num_training_images=1347),
    evaluation=Evaluation(num_samples=1000, num_validation=250, num_reference=450, throughput_batches=(64,)),
)
