import pytest

from scalequest.run.gpus import peak_tflops, share_of_peak


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        # Cards of the same name with another peak, a card without a line, and several kinds at once.
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA L4", None),
        ("NVIDIA A100-PCIE-40GB, NVIDIA L4", None),
    ],
)
def test_a_card_has_the_peak_of_its_own_kind_or_none(card: str, peak: float | None) -> None:
    assert peak_tflops(card) == peak
    assert peak_tflops(card, "float32") is None


def test_the_share_is_six_operations_per_parameter_and_token() -> None:
    # 6 x 1e9 x 1e6 = 6e15 operations in 10 s by two cards of 1e15 a second.
    assert share_of_peak(10**9, 1e6, 10.0, 1000.0, gpus=2) == pytest.approx(0.3)
