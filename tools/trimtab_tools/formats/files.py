"""Reads and writes files: which format a file has, and how its bytes become content and back."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trimtab_client.exceptions import invalid
from trimtab_tools.formats.layout import Array, Layout, SavedPlacement
from trimtab_tools.formats.optional import load_parquet, load_torch, save_parquet, save_torch
from trimtab_tools.formats.plain import Plain
from trimtab_tools.formats.sglang import Sglang
from trimtab_tools.formats.table import Table
from trimtab_tools.formats.tensorrt_llm import TensorRtLlm
from trimtab_tools.formats.vllm_ascend import VllmAscend
