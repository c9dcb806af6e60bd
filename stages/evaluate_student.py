"""Score one student on the benchmarks: zero-shot, chat template on; as set, greedy and pass@1 (paper 3.1).

python -m stages.evaluate_student --model models/student --benchmarks data/benchmarks --tasks eval/tasks
    --samples data/samples/student.parquet --scores eval/scores/student.json
"""

from scalequest.evaluation import evaluate_model
from scalequest.runtime.stage import run_stage

if __name__ == "__main__":
    run_stage(evaluate_model, __doc__, paths=("model", "benchmarks", "tasks", "samples", "scores"))
