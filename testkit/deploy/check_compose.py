#!/usr/bin/env python3
"""Holds a compose file against Docker's own JSON schema, and what it names against the folder that it stands in.

    check_compose.py FILE

Every variable must be one that the `secrets` script beside the file makes; every mounted file must be there. Exit status 1, with
every problem on a line, where something is wrong.
"""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import yaml

VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::\?[^}]*)?\}")


def main() -> int:
    file = pathlib.Path(sys.argv[1])
    folder = importlib.util.find_spec("compose").submodule_search_locations[0]
    schema = json.loads((pathlib.Path(folder) / "config/compose_spec.json").read_text())
    text = file.read_text()
    made = subprocess.run([file.parent / "secrets"], check=True, capture_output=True, text=True, timeout=30).stdout
    values = dict(line.split("=", 1) for line in made.splitlines())
    problems = [f"${{{name}}} is none of what ./secrets makes" for name in VARIABLE.findall(text) if name not in values]
    problems += [f"{name} is made by ./secrets and used nowhere" for name in values if name not in VARIABLE.findall(text)]
    document = yaml.safe_load(VARIABLE.sub(lambda found: values.get(found[1], ""), text))
    # The specification knows it since 1.29.2 was made.
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", document.pop("name")):
        problems.append("name: small letters, digits, - and _")
    for error in jsonschema.Draft7Validator(schema).iter_errors(document):
        problems.append(f"{'.'.join(map(str, error.absolute_path))}: {error.message}")
    named = set(document.get("volumes") or {})
    for name, service in document["services"].items():
        for volume in service.get("volumes") or []:
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (file.parent / source).exists():
                    problems.append(f"{name}: {source} is not there")
            elif source not in named:
                problems.append(f"{name}: no volume {source}")
        for other in service.get("depends_on") or {}:
            if other not in document["services"]:
                problems.append(f"{name}: no service {other}")
        build = service.get("build")
        if build and not (file.parent / build["context"] / build["dockerfile"]).exists():
            problems.append(f"{name}: {build['dockerfile']} is not there")
    for problem in problems:
        print(problem)
    print(f"{file}: {len(document['services'])} services, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
