"""The smallest experiment that still runs every stage: four paradigms, one size, two rungs of a few 1e9 FLOPs."""

from bench.config.experiment import Evaluation, Experiment, Method, Recipe, Size, grid

MAR_OPTIONS = {"head_options": {"width": 32, "depth": 1, "steps": 4, "time_features": 32, "multiplier": 1, "clip": 4.0}}

SAME = ["run_id", "split", "guidance", "steps", "flops_spent", "loss", "fid", "kid", "prompt_accuracy", "status"]
"""Columns in which two sweeps of it must agree."""

EXPERIMENT = Experiment(
    name="miniature",
    flop_rule="meta-v1",
    data="shapes32",
    methods=(
        Method(
            paradigm="diffusion",
            tokenizer="autoencoder-kl",
            learning_rates=(2e-3,),
            settings=grid(steps=(4,), guidance=(1.0, 2.0)),
        ),
        Method(paradigm="next-token", tokenizer="autoencoder-fsq", learning_rates=(2e-3,), settings=grid()),
        Method(
            paradigm="masked-token",
            tokenizer="autoencoder-fsq",
            learning_rates=(2e-3,),
            settings=grid(steps=(4,), guidance=(2.0,), options=({}, {"order": "random"})),
        ),
        Method(
            paradigm="mar",
            tokenizer="autoencoder-kl",
            learning_rates=(2e-3,),
            settings=grid(steps=(4,), guidance=(2.0,)),
            options=MAR_OPTIONS,
        ),
    ),
    sizes=(Size(width=32, depth=2, num_heads=2),),
    budget=4e9,
    rungs=(0.5, 1.0),
    num_seeds=((1, 1),),
    recipe=Recipe(batch_size=4, precision="fp32", warmup_steps=5, num_training_images=512),
    evaluation=Evaluation(
        num_samples=96, num_held_out=16, num_validation=80, num_reference=128, latency_calls=11, throughput_batches=(8,)
    ),
)
