"""docker/ agrees with itself and with the binary. See README.md."""

import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
sys.path.insert(0, str(DOCKER))

import sbom  # noqa: E402


def read(*parts):
    return DOCKER.joinpath(*parts).read_text()


def assignments(text):
    """NAME=VALUE lines of an environment file."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))


def runtime_packages():
    """The alternatives of each line of the group `run`."""
    rows = (line.split() for line in read("dependencies.txt").splitlines())
    return [row[1].split("|") for row in rows if row and row[0] == "run"]


class RuntimeLibraries(unittest.TestCase):
    def setUp(self):
        self.binary = os.environ.get("MOBIUS_BINARY")
        if not self.binary:
            self.skipTest("no binary with an image's libraries")
        if not shutil.which("dpkg-query"):
            self.skipTest("no dpkg")

    @staticmethod
    def installed():
        """What every installed package depends on."""
        listing = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package}\t${Pre-Depends}, ${Depends}\n"],
            check=True, capture_output=True, text=True).stdout
        packages = {}
        for line in listing.splitlines():
            name, depends = line.split("\t")
            wanted = [re.sub(r"[ :(\[].*", "", word.strip()) for word in re.split(r"[,|]", depends)]
            packages[name] = {word for word in wanted if word}
        return packages

    def brought_along(self, roots):
        packages = self.installed()
        seen, queue = set(), list(roots)
        while queue:
            name = queue.pop()
            if name in packages and name not in seen:
                seen.add(name)
                queue += packages[name]
        return seen

    def libraries(self):
        """The server's libraries, each with the package that it belongs to or None."""
        listing = subprocess.run(["ldd", self.binary], check=True, capture_output=True, text=True).stdout
        self.assertNotIn("not found", listing)
        paths = {}
        for library in re.findall(r"=> (/\S+)", listing):
            # /lib is a link to /usr/lib, and packages name either.
            real = os.path.realpath(library)
            paths[library] = {library, real, "/usr" + library, real.removeprefix("/usr")}
        self.assertGreater(len(paths), 10, listing)
        found = subprocess.run(["dpkg-query", "-S", *set().union(*paths.values())], capture_output=True, text=True)
        lines = re.findall(r"^([^:\s]+)(?::\w+)?: (/\S+)$", found.stdout, re.MULTILINE)
        owners = {path: package for package, path in lines}
        return {library: next((owners[name] for name in names if name in owners), None)
                for library, names in paths.items()}

    def test_the_list_brings_every_library_of_the_server(self):
        roots = [package for alternatives in runtime_packages() for package in alternatives]
        available = self.brought_along(roots)
        missing = {library: owner for library, owner in self.libraries().items() if owner not in available}
        self.assertEqual(missing, {}, "docker/dependencies.txt, group run, lacks what owns these")

    def test_nothing_is_listed_that_the_server_does_not_need(self):
        owners = set(self.libraries().values())
        for alternatives in runtime_packages():
            self.assertTrue(owners & set(alternatives), alternatives)


class Compose(unittest.TestCase):
    def test_every_variable_is_documented_with_its_default(self):
        used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", read("compose.yaml")))
        documented = assignments(read(".env.example"))
        self.assertGreater(len(used), 20)
        self.assertEqual(documented.pop("COMPOSE_PROFILES"), assignments(read(".env"))["COMPOSE_PROFILES"])
        # Its default is another in each profile.
        self.assertIn("MOBIUS_CONFIG", used)
        self.assertEqual(documented.pop("MOBIUS_CONFIG"), "")
        del used["MOBIUS_CONFIG"]
        self.assertEqual(documented, used)

    def test_no_variable_lacks_a_default(self):
        bare = re.findall(r"\$\{([A-Z_]+)\}|\$([A-Z_]+)", read("compose.yaml"))
        self.assertEqual(bare, [])

    def test_bases_are_those_of_the_dockerfile(self):
        arguments = dict(re.findall(r"^ARG ([A-Z_]+)=(\S+)$", read("Dockerfile"), re.MULTILINE))
        documented = assignments(read(".env.example"))
        self.assertEqual(len(arguments), 4)
        for name, value in arguments.items():
            self.assertEqual(documented["MOBIUS_" + name], value)


class TimeLimits(unittest.TestCase):
    """What kills a server leaves it the time that draining takes by default."""

    def setUp(self):
        table = (ROOT / "configs" / "README.md").read_text()
        self.drain = int(re.search(r"`server.drain_seconds` \| integer \| `(\d+)`", table)[1])
        self.farewell = 10

    def test_compose(self):
        grace = re.search(r"stop_grace_period: \$\{\w+:-(\d+)s\}", read("compose.yaml"))
        self.assertGreaterEqual(int(grace[1]), self.drain + self.farewell)

    def test_kubernetes(self):
        manifest = read("kubernetes", "deployment.yaml")
        grace = int(re.search(r"terminationGracePeriodSeconds: (\d+)", manifest)[1])
        pause = int(re.search(r'command: \["sleep", "(\d+)"\]', manifest)[1])
        self.assertGreaterEqual(grace, pause + self.drain + self.farewell)


class Images(unittest.TestCase):
    def test_ports_and_user_are_the_same_everywhere(self):
        dockerfile, manifest = read("Dockerfile"), read("kubernetes", "deployment.yaml")
        self.assertEqual(set(re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)), {"10001:10001"})
        self.assertIn("runAsUser: 10001\n", manifest)
        self.assertIn("-o 10001 -g 10001", read("build-stage.sh"))
        table = (ROOT / "configs" / "README.md").read_text()
        for key in ("http.port", "grpc.port"):
            port = re.search(rf"`{key}` \| integer \| `(\d+)`", table)[1]
            self.assertEqual(len(re.findall(rf"^EXPOSE.* {port}\b", dockerfile, re.MULTILINE)), 2)
            self.assertIn(f"containerPort: {port}\n", manifest)
            self.assertIn(f':{port}"', read("compose.yaml"))


class Dashboard(unittest.TestCase):
    def test_it_asks_for_metrics_that_the_server_has(self):
        source = (ROOT / "server" / "metrics" / "exposition.cc").read_text()
        known = set(re.findall(r'"(mobius_\w+)"', source))
        panels = json.loads(read("monitoring", "grafana", "mobius.json"))["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        asked = set()
        for panel in panels:
            self.assertTrue(panel["targets"], panel["title"])
            for target in panel["targets"]:
                names = re.findall(r"mobius_\w+", target["expr"])
                self.assertTrue(names, target)
                asked |= {re.sub(r"_bucket$", "", name) for name in names}
        self.assertEqual(asked - known, set())

    def test_datasource_and_job_are_those_of_the_provisioning(self):
        text = read("monitoring", "grafana", "mobius.json")
        uids = set(re.findall(r'"type": "prometheus",\s*"uid": "(\w+)"', text))
        self.assertEqual(uids, {re.search(r"uid: (\w+)", read("monitoring", "grafana", "datasources.yml"))[1]})
        alias = re.search(r"aliases:\s*- (\w+)", read("compose.yaml"))[1]
        self.assertIn(f'["{alias}:8000"]', read("monitoring", "prometheus.yml"))


class BillOfMaterials(unittest.TestCase):
    STATUS = (
        "Package: b\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.0+x~1\n"
        'Maintainer: A "B" <a@b>\nSource: bsrc (2.0)\nDescription: text\n more: text\n\n'
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n"
        "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 3\n"
    )

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def packages(self):
        path = self.folder / "status"
        path.write_text(self.STATUS)
        return sbom.read_status(path)

    def test_what_is_installed_is_listed_once_and_sorted(self):
        packages = self.packages()
        self.assertEqual([package["Package"] for package in packages], ["a", "b"])
        self.assertEqual(packages[1]["Version"], "1:2.0+x~1")

    def test_document(self):
        packages = self.packages()
        when = datetime.datetime(2025, 1, 2, 3, 4, 5)
        document = sbom.document("n", "1.0", packages[:1], packages[1:], when)
        self.assertEqual(document["creationInfo"]["created"], "2025-01-02T03:04:05Z")
        kinds = {relation["relatedSpdxElement"]: relation["relationshipType"] for relation in document["relationships"]}
        self.assertEqual(kinds, {"SPDXRef-deb-a-all": "CONTAINS", "SPDXRef-deb-b-amd64": "STATIC_LINK",
                                 "SPDXRef-mobius": "DESCRIBES"})
        reference = document["packages"][2]["externalRefs"][0]["referenceLocator"]
        self.assertEqual(reference, "pkg:deb/b@1%3A2.0%2Bx~1?arch=amd64")
        again = sbom.document("n", "1.0", packages[:1], packages[1:], when)
        self.assertEqual(document, again)

    def test_every_library_of_headers_is_one_for_the_list(self):
        """Of what is installed to build: packages with headers and nothing to link are in the binary all the same."""
        if not shutil.which("dpkg-query"):
            self.skipTest("no dpkg")
        rows = (line.split() for line in read("dependencies.txt").splitlines())
        names = [name for row in rows if row and row[0] == "build" for name in row[1].split("|") if name.endswith("-dev")]
        found = set()
        for name in names:
            files = subprocess.run(["dpkg-query", "-L", name], capture_output=True, text=True).stdout
            if "/usr/include/" in files and not re.search(r"\.(so|a)$", files, re.MULTILINE):
                found.add(name)
        self.assertTrue(found)
        unlisted = {name for name in found if not sbom.HEADERS.fullmatch(name)}
        self.assertEqual(unlisted, set())

    def test_a_package_in_both_lists_is_refused(self):
        packages = self.packages()
        with self.assertRaises(SystemExit):
            sbom.document("n", "1.0", packages, packages, datetime.datetime(2025, 1, 1))


if __name__ == "__main__":
    unittest.main()
