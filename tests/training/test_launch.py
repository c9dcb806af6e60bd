"""What accelerate is started with."""

from pathlib import Path

import pytest

from scalequest.training.launch import free_port


@pytest.mark.parametrize(
    ("text", "options"),
    [
        pytest.param("num_processes: 2\n", ["--main_process_port", "0"], id="two_trainings_side_by_side"),
        pytest.param("num_machines: 1\nmain_process_port: null\n", ["--main_process_port", "0"], id="no_port_named"),
        pytest.param("num_machines: 1\nmain_process_port: 29501\n", [], id="the_users_port"),
        pytest.param("num_machines: 2\nmain_process_ip: 10.0.0.1\n", [], id="machines_that_have_to_agree"),
    ],
)
def test_a_training_on_one_machine_takes_a_port_of_its_own(tmp_path: Path, text: str, options: list[str]) -> None:
    config = tmp_path / "accelerate.yaml"
    config.write_text(text)
    assert free_port(config) == options
