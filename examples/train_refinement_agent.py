"""Train an agent that refines meshes, and compare it with Doerfler's marking on problems that it never saw."""

from sciml.envs.agents import Agent, AgentConfig, environment
from sciml.envs.evaluation import compare_policies
from sciml.envs.training import train_agent


def main() -> dict[str, float]:
    config = AgentConfig(imitate=20, steps=8000)
    train_agent("advection", config, "runs/agent", resume=True)
    agent = Agent.load("runs/agent")
    ratios = {}
    for family in ("advection-tanh", "advection-gaussians"):
        env = environment("advection", config, family=family, start="coarse")
        rows = {row["against"]: row for row in compare_policies(env, [agent], problems=4).table()}
        ratios[family] = rows["best doerfler"]["ratio"]
        print(
            f"{family}: {ratios[family]:.2f} times the error of Doerfler's marking "
            f"({rows['best doerfler']['strategy']}), {rows['uniform']['ratio']:.3f} times that of uniform meshes"
        )
    return ratios


if __name__ == "__main__":
    main()
