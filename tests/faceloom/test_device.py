import pytest
import torch

from faceloom.device import repeatable_inference, torch_device
from faceloom.errors import UserError


def test_cuda_is_refused_by_its_key_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device("auto", "flow.device").type == "cpu"
    with pytest.raises(UserError, match=r"flow\.device is cuda"):
        torch_device("cuda", "flow.device")


def test_auto_takes_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device("auto", "flow.device").type == "cuda"
    assert torch_device("cpu", "flow.device").type == "cpu"


def test_repeatable_inference_keeps_cudnn_on_and_restores_its_flags():
    before = (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32)
    with repeatable_inference():
        assert torch.backends.cudnn.enabled
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32
        assert torch.is_inference_mode_enabled()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32) == before
