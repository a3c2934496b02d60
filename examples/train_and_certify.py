"""Train two networks on handwritten digits, one of them certifiably, and prove which answers hold.

python examples/train_and_certify.py
"""

from dataclasses import replace

import ctbench
from ctbench.networks import CNN3
from ctbench.training import Adam, SmoothRamp
from ctbench.verify import FAST_STAGES

EPS = 0.1  # how far each pixel may move; pixels lie in [0, 1]


def main() -> None:
    print(f"{'recipe':<16} natural  adversarial  certified")
    for name in ("digits_standard", "digits_ibp"):
        # a recipe is a frozen dataclass that decides the whole run; a variant replaces some of its fields
        recipe = replace(
            ctbench.recipe(name),
            network=CNN3(width=4, batch_norm=True),
            optimizer=Adam(lr=0.02, milestones=(10,)),
            ramp=SmoothRamp(start=0, end=6),
            epochs=12,
            batch_size=128,
        )
        # the run folder is below runs/; the script goes on where it was interrupted, and trains nothing twice
        run = ctbench.train(recipe, resume=True, quiet=True)
        x, y = recipe.dataset.load().test[:200]
        result = ctbench.certify(run.model, x, y, ctbench.Linf(EPS), stages=FAST_STAGES)
        natural, adversarial = result.natural_accuracy, result.adversarial_accuracy
        print(f"{name:<16} {natural:7.1%}  {adversarial:11.1%}  {result.certified_accuracy:9.1%}")

    print("\nof the last network, by stage:")
    for stage, counts in result.stages.items():
        print(f"  {stage:<18}", ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    proved = [record for record in result if record.verdict is ctbench.Verdict.CERTIFIED]
    closest = min(proved, key=lambda record: record.bound)
    print(f"closest call: image {closest.index}, a {closest.label}, whose margin is at least {closest.bound:.4f}")


if __name__ == "__main__":
    main()
