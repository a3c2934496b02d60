"""`ctbench certify RUN --eps A,B,C`: records for each radius, and what follows is not computed."""

from ctbench.results import RunFolder


def test_certify_takes_several_radii(succeeds, run):
    out = succeeds("certify", run, "--samples", 40, "--eps", "0.05,0.001,0.01,0.02", "--counterexamples")
    files = RunFolder(run).certifications()
    assert [each.records.name for each in files] == [f"linf-{eps}.jsonl" for eps in ("0.001", "0.01", "0.02", "0.05")]
    assert out.splitlines()[-4:] == [str(each.records) for each in files]
    certifications = [each.read() for each in files]
    assert {len(certification) for certification in certifications} == {40}
    shares = [certification.certified_accuracy for certification in certifications]
    assert shares == sorted(shares, reverse=True)
    headings = next(line.split("┃")[1:-1] for line in out.splitlines() if line.startswith("┃"))
    lines = [line.split("│")[1:-1] for line in out.splitlines() if "│" in line]
    rows = [dict(zip(map(str.strip, headings), line, strict=True)) for line in lines]
    assert [float(row["certified %"]) for row in rows] == [round(100 * share, 2) for share in shares]
    implied = [sum(record.decided_at is not None for record in certification) for certification in certifications]
    assert [int(row["by other radii"]) for row in rows] == implied
    assert sum(implied) > 40
    falsified = [record for record in certifications[-1] if record.verdict == "falsified"]
    assert falsified
    assert all((files[-1].counterexamples / f"{record.index}.npy").is_file() for record in falsified)


def test_one_radius_more_costs_only_what_does_not_follow(succeeds, fails, run):
    succeeds("certify", run, "--samples", 40, "--eps", "0.02")
    assert "exists already" in fails("certify", run, "--samples", 40, "--eps", "0.01,0.02")
    succeeds("certify", run, "--samples", 40, "--eps", "0.01,0.02", "--resume")
    known = {
        record.index for record in RunFolder(run).certification("linf-0.02").read() if record.verdict == "certified"
    }
    smaller = RunFolder(run).certification("linf-0.01").read()
    assert {record.index for record in smaller if record.decided_at == 0.02} >= known


def test_several_radii_have_no_common_file(fails, run, tmp_path):
    assert "--out and --export are for one radius" in fails("certify", run, "--eps", "0.1,0.2", "--out", "a.jsonl")
    assert "'x' is not a radius" in fails("certify", run, "--eps", "0.1,x")
