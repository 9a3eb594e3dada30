"""What the benchmark's numbers rest on. Run with `python3 -B -m unittest discover -s testkit/bench`."""

import pathlib
import subprocess
import sys
import unittest
import xml.dom.minidom

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import load
import measure
import plot


class Intervals(unittest.TestCase):
    def test_seven_values_need_their_extremes_for_95_percent(self):
        got = measure.interval([5, 1, 7, 3, 2, 6, 4])
        self.assertEqual((got["median"], got["low"], got["high"]), (4, 1, 7))
        self.assertAlmostEqual(got["coverage"], 1 - 2 / 2**7)

    def test_nine_values_may_lose_one_on_each_side(self):
        got = measure.interval(list(range(9)))
        self.assertEqual((got["low"], got["high"]), (1, 7))
        self.assertAlmostEqual(got["coverage"], 1 - 2 * 10 / 2**9)

    def test_few_values_say_how_little_they_prove(self):
        self.assertAlmostEqual(measure.interval([1.0, 2.0, 3.0])["coverage"], 0.75)
        self.assertEqual(measure.interval([1.0, 3.0])["median"], 2.0)

    def test_percentiles_are_values_that_occurred(self):
        values = [float(number) for number in range(1, 1001)]
        self.assertEqual(measure.percentile(values, 0.99), 990.0)
        self.assertEqual(measure.percentile(values, 0.5), 500.0)
        self.assertEqual(measure.percentile([3.0], 0.99), 3.0)


class Accounts(unittest.TestCase):
    def test_cpu_time_of_a_process_that_burns_is_seen(self):
        burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(1, flush=True)\ninput()"
        with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            used = sum(map(sum, measure.cpu_us(child).values()))
            child.communicate(b"\n")
        self.assertGreater(used, 280_000)
        self.assertLess(used, 600_000)


class Signing(unittest.TestCase):
    def test_secure_link_is_as_in_the_documentation_of_nginx(self):
        # https://nginx.org/en/docs/http/ngx_http_secure_link_module.html, the example of secure_link_md5.
        self.assertEqual(load.secure_link("2147483647/s/link127.0.0.1 secret"), "_e4Nc3iduzkWRm01TBBNYw")

    def test_a_forged_target_differs_in_its_signature_alone(self):
        item = load.objects(load.KIB)[0]
        signed = load.NginxUrls().sign([item])[0]
        forged = load.NginxUrls().forged(signed)
        self.assertEqual(len(signed), len(forged))
        self.assertEqual(sum(a != b for a, b in zip(signed, forged)), 1)
        ticket = load.SegueUrls(pathlib.Path("segue")).forged("/p/header.claims.signature/hls/t/f.m4s")
        self.assertEqual(ticket, "/p/header.claims.Aignature/hls/t/f.m4s")


class Plot(unittest.TestCase):
    def test_is_well_formed_and_keeps_far_values_inside(self):
        ratio = {"median": 9.0, "low": 0.5, "high": 12.0}
        text = plot.svg([{"name": "1 KB", "ratio": ratio, "target": 0.8}], "a & b".replace("&", "&amp;"))
        xml.dom.minidom.parseString(text)
        self.assertLessEqual(plot.x(9.0), plot.WIDTH - plot.RIGHT)


if __name__ == "__main__":
    unittest.main()
