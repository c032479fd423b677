"""XLA flags for tests: programs here run for milliseconds and compile for seconds."""

from importlib.metadata import version

# LLVM's optimisations and XLA's newer emitters cost more than they save. XLA refuses a flag that it does not know, and knows the
# second one only up to jaxlib 0.10.
LEVEL = "--xla_backend_optimization_level=0"
FLAGS = LEVEL
if tuple(map(int, version("jaxlib").split(".")[:2])) <= (0, 10):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
