"""What made the thing that a cell of a notebook shows, read from the code of the cells."""

import ast
from functools import cache
from pathlib import Path

RESULTS = "results"  # what chapters call the folder of studies: what is made with it is made from runs
READERS = ("runs.", "store.", "settings.", "loading.", "tables.titles")  # named where nothing else is to be named
OTHERS = {  # read other studies than the page's own
    "runs.read_variants",
    "runs.read_seeds",
    "runs.earlier_phantom",
    "runs.other_processor",
}
TRAININGS = "runs"  # stands for the folders of all experiments that a page shows
READ = dict.fromkeys(("runs.study", "runs.read_run", "runs.read_overlays", "runs.read_manifests"), TRAININGS) | {
    "runs.describe": "cohorts",
    "runs.spread": "spread",
    "runs.realism": "realism",
    "runs.secondary": "secondary",
    "runs.real_clips": "real",
    "runs.read_seeds": "real",
    "runs.attempts": "attempts",
    "rivals.gather": "rivals",
    "dose.gather": "dose-response",
    "claims.effects_on_gain": "dose-response",
}  # folder of a study, by the function that reads it
NAMED = {"runs.read_run", "runs.read_variants", "runs.kept_tables"}  # name the folder in their first argument
CHANGES = {"append", "extend", "update", "add"}  # methods by which a value becomes part of another


@cache
def functions(module):
    """Public functions that a module of this package has, its own and those it imports from other modules of it.

    Parameters
    ----------
    module : str
        Short name; may be that of no module.

    Returns
    -------
    functions : dict of str to str
        By name: where it is defined, as ``module.function``.
    """
    path = Path(__file__).parents[1] / f"{module}.py"
    if not path.exists():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    return imported(tree.body) | {name: f"{module}.{name}" for name in own}


def imported(statements):
    """Functions that statements import from modules of this package by name, such as ``settings_table``."""
    found = {}
    for node in statements:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lusbook."):
            defined = functions(node.module.removeprefix("lusbook."))
            found |= {alias.asname or alias.name: defined[alias.name] for alias in node.names if alias.name in defined}
    return found


def parse(source):
    """Syntax tree of a cell; an empty one where it holds more than Python, such as magics."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def own_call(node, names):
    """The function of this package that a node of a syntax tree calls, as ``module.function``, or None."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return names.get(node.func.id)
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        return functions(node.func.value.id).get(node.func.attr)
    return None


def outermost(node, names):
    """Calls of functions of this package, without those in the arguments of another, in the order of the text."""
    call = own_call(node, names)
    if call:
        return [call]
    return [found for child in parts(node) for found in outermost(child, names)]


def parts(node):
    """Parts of a node of a syntax tree that make its value: without the condition of ``a if condition else b``."""
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else list(ast.iter_child_nodes(node))


def names_in(node):
    """Names that a value is made of."""
    own = {node.id} if isinstance(node, ast.Name) else set()
    return own.union(*(names_in(part) for part in parts(node)))


def shown(statements):
    """Expressions whose values a cell shows: its last one, or the last of each branch, and what it displays."""
    if not statements:
        return []
    last = statements[-1]
    if isinstance(last, ast.Expr):
        return [last.value]
    branches = [getattr(last, name, []) for name in ("body", "orelse", "finalbody")]
    branches += [handler.body for handler in getattr(last, "handlers", [])]
    return [value for branch in branches if isinstance(branch, list) for value in shown(branch)]


def bindings(tree):
    """What names of a cell are made of.

    Returns
    -------
    bound : dict of str to list of ast.AST
        By name: values assigned to it or to its items, iterables that it walks over, what is appended to it, and
        the function of that name.
    """
    bound = {}

    def bind(target, value):
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                bound.setdefault(node.id, []).append(value)

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                bind(target, node.value)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign) and node.value:
            bind(node.target, node.value)
        elif isinstance(node, ast.For):
            bind(node.target, node.iter)
        elif isinstance(node, ast.FunctionDef):
            bound.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            for argument in node.args:
                bind(node.func.value, argument)
    return bound


def folder_of(node, names):
    """Folder of a study that a node of a syntax tree reads: by a call, or as ``runs.study_folder(...) / "name"``."""
    if isinstance(node, ast.BinOp) and own_call(node.left, names) == "store.study_folder":
        return getattr(node.right, "value", None)
    call = own_call(node, names)
    if call in NAMED and node.args and isinstance(node.args[0], ast.Constant):
        return node.args[0].value
    return READ.get(call)


def makers(sources):
    """Functions of this package that made what the last of some cells shows.

    Parameters
    ----------
    sources : list of str
        Code of a page's cells, in order, as far as the cell in question.

    Returns
    -------
    calls : list of str
        As ``module.function``: calls in what is shown, or else, step by step, in what that was made of.
    source : {None, "study", "studies"}
        Whether anything that it was made of was read from the folder of results, and from other studies besides.
    folders : list of str
        Folders of the study that were read, as far as the code says; ``TRAININGS`` for those of experiments.
    """
    trees = [parse(source) for source in sources]
    names, bound = imported([node for tree in trees for node in ast.walk(tree)]), {}
    for tree in trees:
        for name, values in bindings(tree).items():  # replace those of earlier cells, unless made of them
            bound[name] = values + [old for old in bound.get(name, []) if any(name in names_in(new) for new in values)]
    calls, found, seen, every, folders = [], shown(trees[-1].body), set(), set(), []
    while found:
        calls = calls or [call for node in found for call in outermost(node, names)]
        every |= {own_call(part, names) for node in found for part in ast.walk(node)}
        folders += [folder_of(part, names) for node in found for part in ast.walk(node)]
        used = set().union(*(names_in(node) for node in found)) - seen
        seen |= used
        found = [node for name in sorted(used) for node in bound.get(name, [])]
    made = [call for call in calls if not call.startswith(READERS)] or calls
    source = ("studies" if every & OTHERS else "study") if RESULTS in seen else None
    return list(dict.fromkeys(made)), source, [name for name in dict.fromkeys(folders) if name]
