"""How wrong an assumption would have to be: a trial with a direct effect of 0.3, and what the reader could have known.

python examples/sensitivity.py
"""

from msmmiv.diagnose.sensitivity import direct_effect_line, outcome_spread
from msmmiv.diagnose.sensitivity_correlation import compliance_effect_correlation
from msmmiv.plan.simulate import simulate


def main() -> None:
    trial = simulate("ii", sites=80, people=150, strength=0.3, seed=4)
    print(trial, f"effect of m1 put in: {trial.truth.mediator_effects[0]}", sep="\n")

    line = direct_effect_line(trial.effects, outcome_sd=outcome_spread(trial.moments))
    print(f"\n{line}")
    print(f"without a direct effect {line.estimate[0]:.3f}, with 0.3 {line.at(0.3)[0]:.3f}")
    low, high = line.union(0.0, 0.4).loc[0, ["lower", "upper"]]
    print(f"any direct effect from 0 to 0.4: {low:.3f} to {high:.3f}")

    print(f"\n{compliance_effect_correlation(trial.effects, effect_sd=0.5)}")


if __name__ == "__main__":
    main()
