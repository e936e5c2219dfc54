"""What is said of wrong inputs to ``import`` and ``export``, of wrong files and of wrong arrays: a table a kind.

A table has a row a wrong input: what is wrong, and a distinctive part of the one sentence that is said of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wrong import Wrong, check_call, check_command, good_files

from impq_opt import Group, Problem
from impq_opt.exchange import make_format

# -- tables of scores --------------------------------------------------------------------------------------------

HEAD = "group,size,bits,damage\n"

TABLES: list[tuple[str | bytes, str]] = [
    ("", "t.csv: has no rows"),
    (HEAD, "t.csv: has no rows"),
    (
        "size,bits,damage\n9,4,1\n",
        "has no column 'group', got ['size', 'bits', 'damage'] (the groups may be called name",
    ),
    ("grp,size,bits,damage\na,9,4,1\n", "unknown column, got 'grp' (did you mean 'group'?)"),
    ("group,size,bits,damge\na,9,4,1\n", "unknown column, got 'damge' (did you mean 'damage'?)"),
    ("group,size,bits,damage,costs\na,9,4,1,1\n", "unknown column, got 'costs' (did you mean 'cost'?)"),
    ("group,group,bits,damage\na,a,4,1\n", "t.csv: row 1: has two columns of one name"),
    ("group,Group,bits,damage\na,a,4,1\n", "has two columns of one name, got ['group', 'Group']"),
    ("group,,bits,damage\na,9,4,1\n", "t.csv: row 1: has a column without a name"),
    ("group,bits,damage\na,4,1\n", "needs a column cost, or both size and bits, got ['group', 'bits', 'damage']"),
    ("group,size,bits\na,9,4\n", "must have a column damage or a column sensitivity, got"),
    ("group,size,bits,damage,sensitivity\na,9,4,1,1\n", "a column damage or a column sensitivity, and not both"),
    (HEAD + "a,9,4\n", "t.csv: row 2 (a): must have 4 values, got 3"),
    (HEAD + "a,9,4,0,5\n", "row 2 (a): must have 4 values, got 5 (a decimal comma? write a point"),
    (HEAD + "\n\na,9,4\n", "t.csv: row 4 (a): must have 4 values"),
    (HEAD + ",9,4,1\n", "t.csv: row 2: group: is empty"),
    ("name;numel;bits;damage\n ;9;4;1\n", "t.csv: row 2: name: is empty"),
    (HEAD + "a,,4,1\n", "t.csv: row 2 (a): size: is empty"),
    (HEAD + "a,9,,1\n", "t.csv: row 2 (a): bits: is empty"),
    (HEAD + "a,9,4,\n", "t.csv: row 2 (a): damage: is empty"),
    (HEAD + "a,9,4,1\nb,x,4,1\n", "t.csv: row 3 (b): size: must be a number, got 'x' (such as 64)"),
    ("module,params,bits,damage\na,x,4,1\n", "t.csv: row 2 (a): params: must be a number, got 'x'"),
    (HEAD + "a,9.5,4,1\n", "row 2 (a): size: must be a whole number, got '9.5'"),
    (HEAD + "a,0,4,1\n", "row 2 (a): size: must be positive, got 0"),
    (HEAD + "a,-3,4,1\n", "row 2 (a): size: must be positive, got -3"),
    (HEAD + "a,1e30,4,1\n", "row 2 (a): size: is beyond 64 bits, got '1e30'"),
    (HEAD + "a,inf,4,1\n", "row 2 (a): size: must be a number, got 'inf'"),
    (
        HEAD + 'a,"1,000",4,1\n',
        "row 2 (a): size: can be read in two ways, got '1,000' (write numbers without thousands",
    ),
    (HEAD + "a,16.000,4,1\n", "row 2 (a): size: can be read in two ways, got '16.000'"),
    (HEAD + "a,1'000,4,1\n", 'row 2 (a): size: can be read in two ways, got "1\'000"'),
    (HEAD + "a,1 000,4,1\n", "row 2 (a): size: can be read in two ways, got '1 000'"),
    ("group;size;bits;damage\na;16,000;4;0,5\n", "row 2 (a): size: can be read in two ways, got '16,000'"),
    ("group;size;bits;damage\na;9;4;1,234\n", "row 2 (a): damage: can be read in two ways, got '1,234'"),
    (HEAD + 'a,9,4,"1,234,567"\n', "damage: must be a number, got '1,234,567' (such as 0.25; write numbers without"),
    (HEAD + 'a,9,4,"1.234,5"\n', "row 2 (a): damage: must be a number, got '1.234,5'"),
    ("group;size;bits;damage\na;9;4;0,5\na;9;8;0.1\n", "row 3 (a): damage: has a point where other numbers have"),
    (HEAD + "a,9,int4,1\n", "row 2 (a): bits: must be a finite number, got 'int4' (such as 4 or 0.25)"),
    (HEAD + "a,9,-4,1\n", "row 2 (a): bits: must be a precision of 0 to 64 bits, got -4.0"),
    (HEAD + "a,9,1e20,1\n", "row 2 (a): bits: must be a precision of 0 to 64 bits, got 1e+20"),
    (HEAD + "a,9,inf,1\n", "row 2 (a): bits: must be a finite number, got 'inf'"),
    (HEAD + "a,9,4,nan\n", "row 2 (a): damage: must be a finite number, got 'nan' (such as 0.25; inf where it is not"),
    (HEAD + "a,9,4,-inf\n", "row 2 (a): damage: must be a finite number, got '-inf'"),
    (HEAD + "a,9,4,50%\n", "row 2 (a): damage: must be a finite number, got '50%'"),
    (HEAD + "a,9,4,1_0\n", "row 2 (a): damage: must be a finite number, got '1_0'"),
    (HEAD + "a,9,4,0x1p3\n", "row 2 (a): damage: must be a finite number, got '0x1p3'"),
    (HEAD + "a,9,4,1e999\n", "row 2 (a): damage: is beyond the range of float64, got '1e999'"),
    (HEAD + "a,9,4,1\nb,9,4,inf\n", "row 3 (b): damage: allows none of the group's candidates"),
    (HEAD + "a,9,4,1\na,9,4,2\n", "row 3 (a): bits: candidates must be distinct, and row 2 has the same, got 4.0"),
    ("group,size,bits,format,damage\na,9,4,q,1\na,9,8,q,0\n", "row 3 (a): format: candidates must be distinct"),
    (HEAD + "a,9,4,1\na,8,8,0\n", "row 3 (a): size: differs between the rows of 'a', got 8"),
    ("group,size,bits,damage,kind\na,9,4,1,wait\n", "row 2 (a): kind: must be weight or activation, got 'wait'"),
    ("group,size,bits,damage,kind\na,9,4,1,weight\na,9,8,0,activation\n", "row 3 (a): kind: differs between the rows"),
    ("group,size,bits,damage,layer\na,9,4,1,x\na,9,8,0,y\n", "row 3 (a): layer: differs between the rows of 'a'"),
    ("group,size,sensitivity\na,9,1\na,9,2\n", "row 3 (a): group: a table of sensitivities has one row a group"),
    ("group,size,sensitivity\na,9,x\n", "row 2 (a): sensitivity: must be a finite number, got 'x'"),
    ("group,bits,damage,cost\na,4,1,x\n", "row 2 (a): cost: must be a finite number, got 'x'"),
    ("group,bits,damage,cost\na,4,1,\n", "row 2 (a): cost: is empty"),
    ("group,bits,damage,cost\na,4,1,1e40\n", "row 2 (a): cost: is beyond 64 bits, got '1e40'"),
    ("name,numel,delta2_4\na,9,0.1\n", "needs a column trace: damage is trace times delta2 (HAWQ), got 'delta2_4'"),
    ("name,numel,trace,delta2_4\na,9,0.1,x\n", "row 2 (a): delta2_4: must be a number, got 'x'"),
    ("name,numel,trace,delta2_4\na,9,,0.1\n", "row 2 (a): trace: is empty"),
    ("name,numel,kl_4,mse_4\na,9,0.1,4\n", "says the damage in several ways, got ['kl_4', 'mse_4']"),
    ("name,numel,damage_4,bits\na,9,0.1,4\n", "cannot stand beside bits, got 'damage_4'"),
    ("name,numel,damage_4,damage_8\na,9,,\n", "row 2 (a): name: has no damage at any precision"),
    ('group,size,bits,damage\n"a,9,4,1\n', "t.csv: row 2: is not CSV: a quotation mark is not closed"),
    (
        'group,size,bits,damage\n"a"b,9,4,1\n',
        "t.csv: row 2: is not CSV: a quotation mark is not closed, or not doubled",
    ),
    (HEAD + "a,9,4,0\na,9,8,0\n", "t.csv: every score is 0: nothing was measured, got '1 group' (--accept-zeros"),
    (
        HEAD.encode() + b"\xfc,9,4,1\n",
        "t.csv: is not a text file (a table is CSV in UTF-8; byte 23, in line 2, is not)",
    ),
    ((HEAD + "a,9,4,x\n").encode("utf-16"), "row 2 (a): damage: must be a finite number, got 'x'"),
    ((HEAD + "a,9,4,1\n").encode("utf-32"), "t.csv: is a text in UTF-32 (save it as UTF-8)"),
    (b"\x00\xff\xfe", "t.csv: is not a text file"),
]

# -- scores of other tools as JSON -------------------------------------------------------------------------------


def modelopt(**fields: Any) -> str:
    """Return a search state of two layers, the second with other ``fields``."""
    usual = {"formats": ["A", "B"], "scores": [1.0, 0.1], "costs": [25.0, 50.0]}
    return json.dumps({"candidate_stats": {"fc.quant_recipe": usual, "conv.quant_recipe": usual | fields}})


def exllamav3(*groups: Any) -> str:
    """Return a measurement of two models with these groups."""
    models = {"base": {"dir": "a", "bpw": 2.0}, "alts": [{"dir": "b", "bpw": 3.0}]}
    return json.dumps(models | {"groups": groups, "base_kld": 0.1})


def changed(kld: Any, bits: Any, layers: Any = ("conv",)) -> dict[str, Any]:
    """Return a group of a measurement with one candidate."""
    return {"layers": layers, "candidates": [{"dkld": kld, "dbits": bits}]}


def autoround(**fields: Any) -> str:
    """Return a score cache of one layer with other ``fields``."""
    usual = {"version": 1, "score_granularity": "per_op", "scheme": {"bits": 4, "group_size": 128}}
    return json.dumps(usual | {"layer_scores": {"conv": [512, 0.1]}} | fields)


NAN, INF = float("nan"), float("inf")

SCORES: list[tuple[str, str, str]] = [
    ("modelopt", "", "s.json: line 1, column 1: is empty, and no JSON"),
    ("modelopt", '{"candidate_stats": {"a', "s.json: line 1, column 22: is not JSON (is it whole?)"),
    ("modelopt", '{"candidate_stats": NaNo}', "s.json: line 1, column 24: is not JSON"),
    ("modelopt", "[" * 100_000, "s.json: is not JSON: it is nested too deeply"),
    ("modelopt", "[]", "s.json: must be a table, got []"),
    ("modelopt", "{}", "s.json: the key 'candidate_stats' is missing (are they scores of this format?)"),
    ("modelopt", exllamav3(), "the key 'candidate_stats' is missing (they look like scores of exllamav3)"),
    ("modelopt", '{"candidate_stats": {}}', "s.json: candidate_stats: has no scores"),
    ("modelopt", '{"candidate_stats": {"a": 3}}', "s.json: a: must be a table, got 3"),
    ("modelopt", '{"a": 1, "a": 2}', "s.json: a: stands there twice"),
    (
        "modelopt",
        modelopt(scores=[NAN, 1]),
        "s.json: conv: scores[0]: must be a number, or inf where it is not allowed",
    ),
    ("modelopt", modelopt(scores=[1, -INF]), "s.json: conv: scores[1]: must be a number, or inf"),
    ("modelopt", modelopt(scores=[None, 1]), "s.json: conv.quant_recipe: scores[0]: must be a number, got nothing"),
    ("modelopt", modelopt(scores=["x", 1]), "s.json: conv.quant_recipe: scores[0]: must be a number, got 'x'"),
    ("modelopt", modelopt(scores=[1.0]), "s.json: conv: must have as many costs as scores as formats, got (2, 1, 2)"),
    ("modelopt", modelopt(costs=[NAN, 1]), "s.json: conv: costs[0]: must be a number, or inf"),
    ("modelopt", modelopt(costs=[-1, -2]), "s.json: conv: costs: must be a number of weights, got -1"),
    ("modelopt", modelopt(formats=["A", "A"]), "s.json: conv: formats: has a format twice"),
    ("modelopt", modelopt(scores=[INF, INF]), "groups[1].damage (conv): allows none of the group's candidates"),
    (
        "modelopt",
        modelopt(uncompressed_cost=NAN),
        "s.json: conv: uncompressed_cost: must be a number of weights, got nan",
    ),
    ("exllamav3", exllamav3(), "s.json: groups: has no groups"),
    ("exllamav3", modelopt(), "the key 'groups' is missing (they look like scores of modelopt)"),
    ("exllamav3", exllamav3(changed(NAN, 1)), "s.json: conv: dkld[1]: must be a number, or inf"),
    ("exllamav3", exllamav3(changed(1.0, NAN)), "s.json: conv: dbits[1]: must be a number, or inf"),
    ("exllamav3", exllamav3(changed("x", 1)), "s.json: groups[0].candidates[0].dkld: must be a number, got 'x'"),
    ("exllamav3", exllamav3(changed(1.0, 5, "conv")), "s.json: groups[0].layers: must be a list, got 'conv'"),
    ("exllamav3", exllamav3({"layers": ["conv"]}), "s.json: groups[0]: the key 'candidates' is missing"),
    ("exllamav3", exllamav3(changed(1.0, 5), changed(1.0, 5)), "s.json: groups[1].name: duplicate name, got 'conv'"),
    ("exllamav3", exllamav3(changed(0.0, 5)), "s.json: every score is 0: nothing was measured"),
    ("autoround", autoround(version=2), "s.json: file 1: version: unknown value, got 2"),
    ("autoround", autoround(score_granularity="block"), "file 1: score_granularity: unknown value, got 'block'"),
    ("autoround", autoround(layer_scores={}), "s.json: file 1: layer_scores: has no layers"),
    (
        "autoround",
        autoround(layer_scores={"conv": [512]}),
        "s.json: file 1: conv: must be a list of length 2, got [512]",
    ),
    ("autoround", autoround(layer_scores={"conv": [5.5, 1]}), "file 1: conv[0]: must be a whole number, got 5.5"),
    ("autoround", autoround(layer_scores={"conv": [512, NAN]}), "s.json: conv: loss[0]: must be a number, or inf"),
    ("autoround", autoround(scheme={"bits": 0}), "file 1: scheme.bits: must be a whole number >= 1, got 0"),
]

# -- commands ----------------------------------------------------------------------------------------------------

ONE, OTHER = autoround(), autoround(layer_scores={"fc": [512, 0.1]})

COMMANDS: list[Wrong] = [
    Wrong("import nothing.csv", "nothing.csv: there is no such file"),
    Wrong("import . --from csv", ".: is a folder, not a file"),
    Wrong("import s.json", "--from: say what the file is, got 's.json' (it looks like", {"s.json": modelopt()}),
    Wrong("import t.xlsx", "--from: say what the file is, got 't.xlsx' (save the sheet as CSV first)"),
    Wrong("import t.xyz", "got 't.xyz' (one of autoround, csv, exllamav3, gguf, modelopt, parquet)"),
    Wrong("import t.csv --from modelop", "--from: unknown format, got 'modelop' (did you mean 'modelopt'"),
    Wrong("import t.csv --from mlx", "--from: is not read, got 'mlx'"),
    Wrong("import problem.toml --from csv", "problem.toml: is an impq-opt problem, not scores of csv"),
    Wrong("import answer.json --from modelopt", "answer.json: is an impq-opt allocation, not scores of modelopt"),
    Wrong("import answer.json", "answer.json: is an impq-opt allocation, not an impq-opt problem"),
    Wrong("import a.csv b.csv", "csv scores are one file, got ['a.csv', 'b.csv']", {"a.csv": HEAD, "b.csv": HEAD}),
    Wrong(
        "import a.json b.json --from autoround",
        "a.json, b.json: file 2: does not score the same layers as file 1, got 'conv'",
        {"a.json": ONE, "b.json": OTHER},
    ),
    Wrong("import t.pt --from modelopt", "t.pt: there is no such file"),
    Wrong("import problem.toml --for mlxx", "--for: unknown format, got 'mlxx' (did you mean 'mlx'"),
    Wrong("import problem.toml --for mlx --option group_size=33", "--option group_size: must be 32, 64 or 128, got 33"),
    Wrong("import problem.toml --for mlx --option size=3", "unknown option of format 'mlx', got 'size'"),
    Wrong(
        "import problem.toml --option a=1",
        "--option: belongs to a target or to scores: name a target with --for, got 'a=1'",
    ),
    Wrong("import problem.toml -o /nowhere/x.toml", "--output: /nowhere/x.toml: cannot be written"),
    Wrong("import problem.toml -o .", "--output: .: is a folder, not a file"),
    Wrong("export nothing.toml answer.json --to mlx", "nothing.toml: there is no such file"),
    Wrong("export problem.toml nothing.json --to mlx", "nothing.json: there is no such file"),
    Wrong("export problem.toml answer.json --to mlxx", "--to: unknown format, got 'mlxx' (did you mean 'mlx'"),
    Wrong(
        "export answer.json problem.toml --to mlx", "answer.json: is an impq-opt allocation, not an impq-opt problem"
    ),
    Wrong(
        "export problem.toml problem.toml --to mlx", "problem.toml: is an impq-opt problem, not an impq-opt allocation"
    ),
    Wrong("export t.csv answer.json --to mlx", "t.csv: is a table, not an impq-opt problem", {"t.csv": HEAD}),
    Wrong("export problem.toml t.csv --to mlx", "t.csv: is a table, not an impq-opt allocation", {"t.csv": HEAD}),
    Wrong("export s.json answer.json --to mlx", "s.json: is JSON, not an impq-opt problem", {"s.json": modelopt()}),
    Wrong("export problem.toml answer.json --to llama.cpp", "conv: is not a name that llama.cpp is known to give"),
    Wrong(
        "export problem.toml answer.json --to mlx --option group_size=5", "--option group_size: must be 32, 64 or 128"
    ),
    Wrong("export problem.toml answer.json --to mlx -o /nowhere/x", "--output: /nowhere/x: cannot be written"),
    Wrong("export problem.toml answer.json --to mlx -o .", "--output: .: is a folder, not a file"),
    Wrong("verify answer.json problem.toml", "not an impq-opt problem (the problem comes first, then the allocation)"),
    Wrong("solve /dev/null", "/dev/null: is a device, not a file"),
]

# -- problem files -----------------------------------------------------------------------------------------------

PROBLEM = """\
format = "impq-opt problem"
format_version = 1
minimize = "storage"
bound = 0.02
bits = [2, 4, 8]
groups = [
    { name = "conv", size = 100, sensitivity = 1.0 },
    { name = "fc", size = 200, sensitivity = 0.5 },
]
"""

# What is put for what, and what is said of it.
PROBLEMS: list[tuple[str, str, str]] = [
    (PROBLEM, "", "q.toml: is not an impq-opt problem file (such a file says format = 'impq-opt problem'"),
    (PROBLEM, "[project]\n", "q.toml: is not an impq-opt problem file"),
    (PROBLEM, "a = 1\na = 2\n", "q.toml: line 2, column 6: is not valid TOML: cannot overwrite a value"),
    (PROBLEM, "a = ", "q.toml: end of document: is not valid TOML: invalid value"),
    ("format_version = 1", "format_version = 2", "was written by a later release"),
    ("format_version = 1", 'format_version = "1"', "q.toml: format_version: must be a whole number, got '1'"),
    ("format_version = 1\n", "", "q.toml: the key 'format_version' is missing"),
    ("size = 100", "size = 0", "q.toml: groups[0].size (conv): must be positive, got 0"),
    ("size = 100", "size = 1.5", "q.toml: groups[0].size: must be a whole number, got 1.5"),
    ("size = 100", 'size = "100"', "q.toml: groups[0].size: must be a whole number, got '100'"),
    ("size = 100", "numel = 100", "q.toml: groups[0]: unknown key, got 'numel' (did you mean 'size'?)"),
    ("size = 100", "Size = 100", "q.toml: groups[0]: unknown key, got 'Size' (did you mean 'size'"),
    ('name = "conv"', 'group = "conv"', "q.toml: groups[0]: unknown key, got 'group' (did you mean 'name'?)"),
    ('name = "conv"', 'name = ""', "q.toml: groups[0].name: a name must be a non-empty string, got ''"),
    ('name = "conv"', "name = 3", "q.toml: groups[0].name: must be text, got 3"),
    ('name = "conv"', 'name = "fc"', "q.toml: groups[1].name: duplicate name, got 'fc'"),
    (
        "sensitivity = 1.0",
        "sensitivity = nan",
        "groups[0].sensitivity (conv): must be finite and not negative, got nan",
    ),
    ("sensitivity = 1.0", "sensitivity = -1", "groups[0].sensitivity (conv): must be finite and not negative, got -1"),
    ("sensitivity = 1.0", 'sensitivity = "1"', "q.toml: groups[0].sensitivity: must be a number or nothing, got '1'"),
    ("sensitivity = 1.0", "damage = [1, 2]", "q.toml: groups[0].damage: must have one value per candidate"),
    ("sensitivity = 1.0", "macs = 1", "q.toml: groups[0]: give either sensitivity or damage, got 'conv'"),
    ("sensitivity = 1.0", 'sensitivity = 1.0, reads = "fcc"', "groups[0].reads: no such group, got 'fcc'"),
    ("sensitivity = 1.0", "sensitivity = 1.0, macs = -1", "groups[0].macs (conv): must not be negative, got -1"),
    ("sensitivity = 1.0", "sensitivity = 1.0, costs = {x = [1]}", "q.toml: groups[0].costs.x: is not declared"),
    ("bits = [2, 4, 8]", "bits = []", "q.toml: groups[0].bits: must name at least one precision, got []"),
    ("bits = [2, 4, 8]", "bits = [2, 2]", "q.toml: groups[0].bits: must be distinct, got [2, 2]"),
    ("bits = [2, 4, 8]", "bits = [-2]", "q.toml: bits[0]: must be finite and not negative, got -2"),
    ("bits = [2, 4, 8]", 'bits = "2,4"', "q.toml: bits: must be a list or nothing, got '2,4'"),
    ("bound = 0.02", "bound = 0", "q.toml: bound: must be positive, got 0"),
    ("bound = 0.02", 'bound = "x"', "q.toml: bound: must be a number, got 'x' (or a fraction such as '1/3')"),
    ("bound = 0.02", "bonud = 0.02", "q.toml: unknown key, got 'bonud' (did you mean 'bound'"),
    ('"storage"', '"strage"', "q.toml: minimize: unknown cost, got 'strage' (did you mean 'storage'?)"),
    (
        "bound = 0.02",
        "pins = {conv = 3}",
        "pins: conv: is pinned to a precision that is not among its candidates, got 3",
    ),
    (
        "bound = 0.02",
        "pins = {cnv = 4}",
        "q.toml: pins.cnv: no such group, got 'cnv' (did you mean 'conv'?; a pattern is a name",
    ),
    ("bound = 0.02", 'ties = [["conv", "fcc"]]', "q.toml: ties[0]: no such group, got 'fcc'"),
    ("bound = 0.02", 'budgets = {storage = "5 parsec"}', "budgets.storage: unknown unit for a quantity in bit"),
    ("bound = 0.02", "budgets = {storage = 0}", "q.toml: budgets.storage: must be positive, got 0"),
    ("bound = 0.02", "grids = {conv = 3}", "q.toml: grids.conv: must be text, got 3"),
    ("bound = 0.02", 'arrays = {file = "/etc/x", sha256 = ""}', "arrays.file: must be a file beside the problem file"),
]

# -- allocation files --------------------------------------------------------------------------------------------

# Keys and what is put there (... for taken out), and what is said of it.
ANSWERS: list[tuple[tuple[str, ...], Any, str]] = [
    ((), "", "b.json: line 1, column 1: is empty, and no JSON"),
    ((), "{", "b.json: line 1, column 2: is not JSON (is it whole?)"),
    ((), "[]", "b.json: is not an impq-opt allocation file"),
    ((), '{"format": "x"}', "b.json: is not an impq-opt allocation file, got 'x'"),
    ((), '{"seed": NaN}', "b.json: is not JSON: it holds a number that JSON does not have"),
    ((), '{"seed": 1, "seed": 2}', "b.json: seed: stands there twice"),
    (("format_version",), 2, "b.json: was written by a later release"),
    (
        ("status",),
        "best",
        "b.json: status: unknown value, got 'best' (known are feasible, infeasible, optimal, unknown)",
    ),
    (("status",), None, "b.json: status: must be text, got nothing"),
    (("status",), ..., "b.json: the key 'status' is missing"),
    (("sed",), 3, "b.json: unknown key, got 'sed' (did you mean 'seed'"),
    (("seed",), "x", "b.json: seed: must be a whole number, got 'x'"),
    (("stop",), "never", "b.json: stop: unknown reason, got 'never'"),
    (("problem_digest",), "abc", "b.json: problem_digest: answers another problem, or this one before it was changed"),
    (("bits",), [4, 4], "b.json: bits: must be a table or nothing, got [4, 4]"),
    (("bits", "conv"), ..., "b.json: bits: a group has no precision, got 'conv'"),
    (("bits", "cnv"), 4, "b.json: bits: no such group, got 'cnv' (did you mean 'conv'?)"),
    (("bits", "conv"), 3, "b.json: bits.conv: is not among the group's candidates, got 3 (they are 2, 4, 8)"),
    (("bits", "conv"), "x", "b.json: bits.conv: must be a number, got 'x'"),
    (("exact", "cost"), "x", "b.json: exact.cost: must be a fraction, got 'x' (such as '3/4')"),
    (("exact", "cost"), "1/0", "b.json: exact.cost: must not be divided by 0, got '1/0'"),
    (("exact", "cost"), None, "b.json: exact.cost: must be stated where there are bits"),
    (("budgets",), {"storage": "x"}, "b.json: budgets.storage: must be a fraction, got 'x'"),
    (("revision",), {"pins": {"cnv": 4}}, "b.json: pins.cnv: no such group, got 'cnv'"),
    (("revision",), {"pin": {}}, "b.json: revision: unknown key, got 'pin' (did you mean 'pins'?)"),
    (("certificate",), {"multipliers": {}}, "b.json: certificate: the key 'quantum' is missing"),
]

# -- arrays, groups and formats from Python ----------------------------------------------------------------------


def scored(sizes: Any, scores: Any, **fields: Any) -> Problem:
    """Return a problem of sensitivities."""
    return Problem.from_sensitivities(sizes, scores, **fields)


def tables(cost: Any, damage: Any, **fields: Any) -> Problem:
    """Return a problem of tables."""
    return Problem.from_tables(cost, damage, **fields)


def declared(*groups: Group, **fields: Any) -> Problem:
    """Return a problem of groups."""
    return Problem.declare(groups, **fields)


NAMES = {
    "np": np, "inf": INF, "nan": NAN, "Group": Group, "scored": scored, "tables": tables, "declared": declared,
    "conv": Group("conv", size=9, sensitivity=1.0, bits=(2, 4)), "form": make_format,
}  # fmt: skip

CALLS: list[tuple[str, str]] = [
    ("scored([], [])", "sizes: must be a non-empty array of 1 dimension"),
    ("scored([1, 2], [1.0])", "damage: one row per group, got (1, 2)"),
    ("scored([0.5, 0.1], [100, 200])", "sizes: must hold whole numbers"),
    ("scored([0.5, 0.1], [100, 200])", "are sizes and sensitivities in each other's place?"),
    ("scored([0], [1.0])", "groups[0].size (group[0]): must be positive, got 0"),
    ("scored(['a'], [1.0])", "sizes: must hold whole numbers"),
    ("scored([1], ['x'])", "sensitivity"),
    ("scored([1], [-1.0])", "groups[0].sensitivity (group[0]): must be finite and not negative, got -1.0"),
    ("scored([1], [nan])", "groups[0].sensitivity (group[0]): must be finite and not negative, got nan"),
    ("scored([1], [[1.0]])", "must be a non-empty array of 1 dimension, got (1, 1)"),
    ("scored([2**70], [1.0])", "sizes: is too large for 64 bits, got 1180591620717411303424"),
    ("scored([2**62], [1.0])", "sizes: sizes are too large for exact 64-bit sums"),
    ("scored([1], [1.0], bits=8)", "bits: must be a list of precisions, got 8 (e.g. [2, 4, 8])"),
    ("scored([1], [1.0], bits='2,4')", "bits: must be a list of precisions, got '2,4'"),
    ("scored([1], [1.0], bits=[])", "a group needs at least one candidate"),
    ("scored([1], [1.0], bits=[4, 4])", "candidates must be distinct"),
    ("scored([1], [1.0], bits=['four'])", "bits[0]: must be a finite number, got 'four'"),
    ("scored([1, 1], [1.0, 2.0], names=['a'])", "names: one name per group, got (1, 2)"),
    ("scored([1, 1], [1.0, 2.0], names=['a', 'a'])", "groups[1].name: duplicate name, got 'a'"),
    ("scored([1], [1.0], names=[3])", "groups[0].name: a name must be a non-empty string, got 3"),
    ("scored([1], [1.0], kinds=['wait'])", "groups[0].kind: must be 'weight' or 'activation', got 'wait'"),
    ("scored([1], [1.0], bound=0)", "bound: must be positive"),
    ("scored([1], [1.0], pins={'a': 4})", "pins: must be a mapping of groups to columns"),
    ("scored([1], [1.0], objective={'strage': 1})", "unknown cost, got 'strage' (did you mean 'storage'?)"),
    ("scored([1], [1.0], unmeasured=[1, 0])", "unmeasured: must say yes or no for each group"),
    ("scored(np.ma.masked_array([1, 2], [0, 1]), [1.0, 2.0])", "sizes[1]: is masked"),
    ("tables([[1, 2]], [[1.0]])", "cost: cost and damage must have one shape, got ((1, 2), (1, 1))"),
    ("tables([1, 2], [1.0, 2.0])", "damage: must be a non-empty array of 2 dimensions, got (2,)"),
    ("tables([[1, 2]], [[1.0, nan]])", "groups[0].damage[1] (group[0]): must be finite and not negative, got nan"),
    ("tables([[1, 2]], [[inf, inf]])", "groups[0].damage (group[0]): allows none of the group's candidates"),
    ("tables([['a', 'b']], [[1.0, 2.0]])", "costs.cost: must hold real numbers"),
    ("tables([[1, 2]], [[1.0, 2.0]], bits=[[4, 8], [4, 8]])", "bits: must have one list per group, got 2"),
    ("declared()", "groups: a problem needs at least one group"),
    ("declared(Group('a', size=1))", "groups[0]: give either sensitivity or damage, got 'a'"),
    ("declared(Group('a', size=1, damage=[1.0], bits=(4, 8)))", "groups[0].damage: must have one value per candidate"),
    (
        "declared(conv, pins={'cnv': 4})",
        "pins.cnv: no such group, got 'cnv' (did you mean 'conv'?; a pattern is a name",
    ),
    ("declared(conv, pins={'conv': 99})", "pins: conv: is pinned to a precision that is not among its candidates"),
    ("declared(conv, ties=['conv'])", "ties[0]: must be a list of names, got 'conv'"),
    ("form('mlxx')", "unknown format, got 'mlxx' (did you mean 'mlx'?)"),
    ("form('mlx', size=3)", "unknown option of format 'mlx', got 'size' (did you mean 'group_size'?)"),
    ("form('csv').problem({})", "columns: has no column 'group'"),
    ("form('csv').problem({'group': [], 'damage': []})", "columns: has no rows"),
    ("form('csv').problem({'name': ['a', 'b'], 'size': [1]})", "size: must have as many rows as name, got (1, 2)"),
    ("form('csv').problem(dict(group=['a'], size=[1], bits=[4], damage=[nan]))", "row 2 (a): damage: must be finite"),
    ("form('modelopt').problem(None)", "must be a table, got nothing"),
    ("form('autoround').problem([])", "must be a list of score caches, got []"),
    ("form('exllamav3').problem([])", "must be a table, got []"),
    ("form('csv').read('a.csv', 'b.csv')", "csv scores are one file, got ['a.csv', 'b.csv']"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    good_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hold(rows: list[Wrong], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a table's rows, and tell of all that do not hold."""
    failed = []
    for wrong in rows:
        try:
            check_command(wrong, folder, capsys)
        except AssertionError as error:
            failed.append(f"{wrong.command} {dict(wrong.files)}\n  {wrong.says}\n  {error}")
    assert not failed, "\n".join(failed)


def test_tables_of_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold([Wrong("import t.csv -o out.toml", says, {"t.csv": text}) for text, says in TABLES], folder, capsys)


def test_scores_of_other_tools(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "import s.json --from {} -o out.toml"
    hold([Wrong(command.format(name), says, {"s.json": text}) for name, text, says in SCORES], folder, capsys)


def test_import_and_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold(COMMANDS, folder, capsys)


def test_problem_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(PROBLEM.count(old) == 1 for old, _, _ in PROBLEMS)
    rows = [Wrong("solve q.toml", says, {"q.toml": PROBLEM.replace(old, new)}) for old, new, says in PROBLEMS]
    hold(rows, folder, capsys)


def test_allocation_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for keys, value, says in ANSWERS:
        document = json.loads((folder / "answer.json").read_text())
        for key in keys[-1:]:
            inner = document[keys[0]] if len(keys) > 1 else document
            inner[key] = value
            if value is ...:
                del inner[key]
        rows.append(Wrong("verify problem.toml b.json", says, {"b.json": json.dumps(document) if keys else value}))
    hold(rows, folder, capsys)


@pytest.mark.parametrize(("call", "says"), CALLS)
def test_calls_from_python(call: str, says: str) -> None:
    check_call(call, says, NAMES)
