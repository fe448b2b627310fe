"""Building and taking apart strings."""


def main():
    parts, total = [], 0
    for n in range(12000):
        parts.append(f"{n:05d}:{n * 3.5:.2f}")
        if n % 100 == 99:
            text = ",".join(parts)
            total += len(text.upper().replace("0", "o").split(","))
            total += text.count("9") + text.find("00") + len(text.encode())
            parts.clear()
    return total + len("".join(chr(97 + n % 26) for n in range(20000)).title())
