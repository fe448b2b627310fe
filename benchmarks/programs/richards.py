"""Objects and method calls: a scheduler with tasks that pass packets to each other, after Richards."""

from collections import deque


class Packet:
    def __init__(self, kind, data):
        self.kind, self.data, self.seen = kind, data, 0


class Task:
    def __init__(self, scheduler, name, priority):
        self.scheduler, self.name, self.priority = scheduler, name, priority
        self.inbox = deque()
        self.held = False
        scheduler.add(self)

    def runnable(self):
        return bool(self.inbox) and not self.held

    def run(self):
        raise NotImplementedError

    def take(self):
        packet = self.inbox.popleft()
        packet.seen += 1
        return packet


class Idle(Task):
    def __init__(self, scheduler, name, priority, turns):
        super().__init__(scheduler, name, priority)
        self.turns, self.control = turns, 1

    def runnable(self):
        return self.turns > 0

    def run(self):
        self.turns -= 1
        self.control = (self.control >> 1) ^ (0xD008 if self.control & 1 else 0)
        target = "device-a" if self.control & 1 else "device-b"
        self.scheduler.task(target).held = False
        if self.turns % 3 == 0:
            self.scheduler.send("worker", Packet("work", [0] * 4))


class Worker(Task):
    def __init__(self, scheduler, name, priority):
        super().__init__(scheduler, name, priority)
        self.count = 0

    def run(self):
        packet = self.take()
        for i in range(len(packet.data)):
            self.count = (self.count + 1) % 26
            packet.data[i] = 65 + self.count
        self.scheduler.send("handler-a" if self.count % 2 else "handler-b", packet)


class Handler(Task):
    def __init__(self, scheduler, name, priority, device):
        super().__init__(scheduler, name, priority)
        self.device = device

    def run(self):
        packet = self.take()
        if packet.seen < 8:
            self.scheduler.send(self.device, packet)
        else:
            self.scheduler.done += sum(packet.data)


class Device(Task):
    def __init__(self, scheduler, name, priority, handler):
        super().__init__(scheduler, name, priority)
        self.handler = handler

    def run(self):
        self.held = True
        self.scheduler.send(self.handler, self.take())


class Scheduler:
    def __init__(self):
        self.tasks, self.by_name = [], {}
        self.done = self.switches = 0

    def add(self, task):
        self.tasks.append(task)
        self.tasks.sort(key=lambda each: -each.priority)
        self.by_name[task.name] = task

    def task(self, name):
        return self.by_name[name]

    def send(self, name, packet):
        self.by_name[name].inbox.append(packet)

    def run(self):
        while True:
            for task in self.tasks:
                if task.runnable():
                    task.run()
                    self.switches += 1
                    break
            else:
                return


def main():
    scheduler = Scheduler()
    Idle(scheduler, "idle", 0, 3000)
    Worker(scheduler, "worker", 10)
    Handler(scheduler, "handler-a", 20, "device-a")
    Handler(scheduler, "handler-b", 21, "device-b")
    Device(scheduler, "device-a", 30, "handler-a")
    Device(scheduler, "device-b", 31, "handler-b")
    scheduler.run()
    return scheduler.switches, scheduler.done
