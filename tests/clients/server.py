"""`thimble serve` on a free port, for as long as a test runs."""

import re
import subprocess


class Server:
    def __init__(self, thimble, models, log):
        self.log = open(log, "w")
        self.process = subprocess.Popen([str(thimble), "serve", *map(str, models), "--port", "0"], text=True,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        first = self.process.stdout.readline()
        address = re.search(r"http://\S+:\d+", first)
        if not address:
            self.process.wait(timeout=10)
            raise SystemExit(f"`thimble serve` did not start: {first}{open(log).read()}")
        self.address = address[0]

    def running(self):
        return self.process.poll() is None

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None
        finally:
            self.log.close()
