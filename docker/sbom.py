#!/usr/bin/env python3
"""Writes the software bill of materials of an image as SPDX 2.3 JSON. A step of docker/Dockerfile.

What is in the image is what dpkg has installed there (--image, its status file). Headers that were
compiled into the server left no package behind: they are listed with the version that the build
stage has (--build), as static dependencies.
"""

import argparse
import datetime
import hashlib
import json
import os
import re
import urllib.parse

# Packages of the build that are headers alone, and end up inside the binary.
HEADERS = re.compile(r"cppzmq-dev|libboost1\.\d+-dev|libcli11-dev|nlohmann-json3-dev")


def read_status(path):
    """The installed packages of a dpkg status file, each a dict of its fields in one line."""
    packages = []
    with open(path, encoding="utf-8") as file:
        for paragraph in file.read().split("\n\n"):
            fields = {}
            for line in paragraph.splitlines():
                name, colon, value = line.partition(":")
                if colon and not line[0].isspace():
                    fields[name] = value.strip()
            if fields.get("Status", "").endswith(" installed"):
                packages.append(fields)
    return sorted(packages, key=lambda fields: (fields["Package"], fields["Architecture"]))


def purl(fields):
    name, version = (urllib.parse.quote(fields[key], safe="") for key in ("Package", "Version"))
    return f"pkg:deb/{name}@{version}?arch={fields['Architecture']}"


def spdx_package(fields):
    package = {
        "SPDXID": "SPDXRef-deb-" + re.sub(r"[^A-Za-z0-9.-]", "-", f"{fields['Package']}-{fields['Architecture']}"),
        "name": fields["Package"],
        "versionInfo": fields["Version"],
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl(fields)}],
    }
    maintainer = re.fullmatch(r"(.*?)\s*<(.*)>", fields.get("Maintainer", ""))
    if maintainer:
        package["supplier"] = f"Organization: {maintainer[1]} ({maintainer[2]})"
    if "Source" in fields:
        package["sourceInfo"] = "built from source package " + fields["Source"]
    return package


def document(name, version, installed, headers, created):
    root = {
        "SPDXID": "SPDXRef-mobius",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    }
    packages, relationships = [root], []
    for fields in installed + headers:
        packages.append(spdx_package(fields))
    ids = [package["SPDXID"] for package in packages]
    if len(ids) != len(set(ids)):
        raise SystemExit("sbom: two packages have the same name")
    for index, identifier in enumerate(ids[1:]):
        kind = "CONTAINS" if index < len(installed) else "STATIC_LINK"
        relationships.append({"spdxElementId": root["SPDXID"], "relationshipType": kind, "relatedSpdxElement": identifier})
    relationships.append({"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": root["SPDXID"]})
    digest = hashlib.sha256(json.dumps([packages, relationships], sort_keys=True).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        # Unique, as SPDX wants it, and the same for the same content.
        "documentNamespace": f"urn:mobius:sbom:{name}:{digest}",
        "creationInfo": {"created": created.strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: mobius-sbom"]},
        "packages": packages,
        "relationships": relationships,
    }


def project_version():
    """The version that CMakeLists.txt gives the project."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "CMakeLists.txt")
    with open(path, encoding="utf-8") as file:
        return re.search(r"project\(mobius VERSION (\S+)", file.read())[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of the image")
    parser.add_argument("--image", required=True, help="dpkg's status file of the image")
    parser.add_argument("--build", required=True, help="dpkg's status file of the build stage")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    installed = read_status(arguments.image)
    headers = [fields for fields in read_status(arguments.build) if HEADERS.fullmatch(fields["Package"])]
    if not installed or not headers:
        parser.error("a status file without the packages that must be there")
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now(datetime.timezone.utc)
    created = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc) if seconds else now
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump(document(arguments.name, project_version(), installed, headers, created), file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
