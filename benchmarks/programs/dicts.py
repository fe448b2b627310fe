"""Dicts and sets: counting words, grouping, intersections."""

from collections import Counter, defaultdict


def main():
    words = [f"w{n * 7919 % 1009}" for n in range(25000)]
    counts = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    groups = defaultdict(list)
    for n, word in enumerate(words):
        groups[len(word), n % 3].append(word)
    common = set(words[:5000]) & set(words[10000:15000])
    odd = {word for word in common if hash(word) % 1 == 0 and counts[word] % 2}
    merged = {**counts, **{n: n for n in range(5000)}}
    return len(counts), len(groups), len(common), len(odd), len(merged), Counter(words).most_common(1)[0][1]
