"""A training process of which one is made to diverge; started by test_divergence in the place of training.launch."""

from scalequest.training.launch import main
from tests.training.test_divergence import fail_in_one_process

if __name__ == "__main__":
    fail_in_one_process()
    main()
