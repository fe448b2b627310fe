"""Objects in a graph: one-way constraints, planned by strength and carried out, after DeltaBlue."""

from itertools import pairwise


class Variable:
    def __init__(self, name, value):
        self.name, self.value = name, value
        self.constraints = []
        self.determined_by = None
        self.strength = 0
        self.mark = 0

    def attach(self, constraint):
        self.constraints.append(constraint)


class Constraint:
    def __init__(self, strength):
        self.strength = strength
        self.satisfied = False

    def inputs(self):
        return ()

    def execute(self):
        pass

    def known(self, mark):
        return all(variable.mark == mark for variable in self.inputs())


class Stay(Constraint):
    def __init__(self, variable, strength):
        super().__init__(strength)
        self.output = variable
        variable.attach(self)


class Edit(Stay):
    pass


class Scale(Constraint):
    def __init__(self, source, factor, offset, output, strength):
        super().__init__(strength)
        self.source, self.factor, self.offset, self.output = source, factor, offset, output
        for variable in (source, factor, offset, output):
            variable.attach(self)

    def inputs(self):
        return (self.source, self.factor, self.offset)

    def execute(self):
        self.output.value = self.source.value * self.factor.value + self.offset.value


class Equal(Constraint):
    def __init__(self, source, output, strength):
        super().__init__(strength)
        self.source, self.output = source, output
        source.attach(self)
        output.attach(self)

    def inputs(self):
        return (self.source,)

    def execute(self):
        self.output.value = self.source.value


class Planner:
    def __init__(self):
        self.mark = 0

    def add(self, constraint):
        output = constraint.output
        while constraint is not None:
            previous = output.determined_by
            if previous is not None and previous.strength >= constraint.strength:
                return
            if previous is not None:
                previous.satisfied = False
            output.determined_by = constraint
            output.strength = constraint.strength
            constraint.satisfied = True
            constraint.execute()
            constraint = None

    def plan(self, sources):
        self.mark += 1
        plan, todo = [], list(sources)
        while todo:
            constraint = todo.pop()
            output = constraint.output
            if output.mark == self.mark or not (constraint.known(self.mark) or isinstance(constraint, Edit)):
                continue
            plan.append(constraint)
            output.mark = self.mark
            for other in output.constraints:
                if other.satisfied and other.output is not output:
                    todo.append(other)
        return plan


def chain(length):
    planner = Planner()
    variables = [Variable(f"v{n}", 0) for n in range(length)]
    for before, after in pairwise(variables):
        planner.add(Equal(before, after, 5))
    edit = Edit(variables[0], 9)
    planner.add(edit)
    total = 0
    for value in range(20):
        variables[0].value = value
        for constraint in planner.plan([edit]):
            constraint.execute()
        total += variables[-1].value
    return total


def projection(count):
    planner = Planner()
    factor, offset = Variable("factor", 10), Variable("offset", 1000)
    edits = [Edit(factor, 9), Edit(offset, 9)]
    results = []
    for edit in edits:
        planner.add(edit)
    for n in range(count):
        source, output = Variable(f"s{n}", n), Variable(f"o{n}", n)
        edits.append(Edit(source, 9))
        planner.add(edits[-1])
        planner.add(Scale(source, factor, offset, output, 5))
        results.append(output)
    total = 0
    for value in range(10):
        factor.value = value
        for constraint in planner.plan(edits):
            constraint.execute()
        total += sum(output.value for output in results)
    return total


def main():
    return chain(600), projection(300)
