"""PPO-ptx of InstructGPT (arXiv 2203.02155): PPO plus γ times the log-likelihood of demonstrations, in every update."""

from pydantic import Field

from sharpen.methods import PPO, SFT
from sharpen.methods.method import Mixed


class PPOPtx(PPO):
    name = "ppo_ptx"

    ptx_coef: float = Field(27.8, gt=0)
    """γ, InstructGPT's 27.8."""
    ptx_prompts: int = Field(8, ge=1)
    """Demonstrations per step."""

    def mixed(self) -> Mixed:
        return Mixed(SFT(), self.ptx_coef, self.ptx_prompts)
