"""Find the equation of noisy measurements, predators and prey, with standard errors."""

from sciml.datasets import generate
from sciml.datasets.recipes import LotkaVolterraRecipe
from sciml.training import DynamicsConfig, train_dynamics
from sciml.training.equations import read_equation


def main() -> dict[str, float]:
    recipe = LotkaVolterraRecipe(alpha=1.56, beta=1.12, gamma=3.1, delta=1.21, frames=100, final_time=6.0)
    data = generate(recipe, 1, "orbit.h5", seed=0, overwrite=True)
    # One Mu-layer, a polynomial of degree two, is trained on 60 of 100 frames with 5 % of noise.
    config = DynamicsConfig(frames=60, noise=0.05)
    result = train_dynamics(config, data, "orbit", overwrite=True, progress=False)
    equation = read_equation("orbit")
    print(equation.text())
    print("true: dx/dt = 1.56 x - 1.12 x y,  dy/dt = - 3.1 y + 1.21 x y")
    print(
        f"roll-out beyond the noisy frames: relative L2 {result['errors']['training, equation']['end']:.3f}"
    )
    return equation.polynomial.terms(0)


if __name__ == "__main__":
    main()
