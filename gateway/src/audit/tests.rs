//! The log under everything that may happen to its files.

use std::{fs, path::PathBuf};

use serde_json::json;

use super::{chain::Broken, *};

/// Bytes after which a file of these logs is full: two or three entries.
const ROTATE: u64 = 700;

fn entry(number: u64) -> Entry {
    Entry {
        at_ms: 1_700_000_000_000 + number,
        actor: Actor::Token("ops".to_owned()),
        from: Some("127.0.0.1".to_owned()),
        action: "block.release",
        object: format!("ip:192.0.2.{number}"),
        before: json!({ "scope": "all", "reason": "ü\n\"x\"" }),
        after: Value::Null,
    }
}

/// A log of so many entries, in batches of one to three.
fn log(directory: &Path, entries: u64) -> Head {
    let mut log = writer::Log::open(directory, ROTATE).unwrap();
    let all: Vec<Entry> = (1..=entries).map(entry).collect();
    let mut rest = all.as_slice();
    for size in [1, 3, 2].into_iter().cycle() {
        let (batch, more) = rest.split_at(size.min(rest.len()));
        log.append(batch).unwrap();
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    log.head()
}

fn verify(directory: &Path, noted: Option<Head>) -> Result<chain::Proof, Broken> {
    chain::verify(directory, Head::default(), noted, |_| {}).unwrap()
}

/// The files with their content.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = chain::files(directory).unwrap();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_log_is_whole_over_files_and_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let head = log(directory.path(), 8);
    assert!(contents(directory.path()).len() >= 3, "it rotates");
    let mut again = writer::Log::open(directory.path(), ROTATE).unwrap();
    assert_eq!(again.head(), head);
    again.append(&[entry(9)]).unwrap();
    let mut seen = Vec::new();
    let proof = chain::verify(directory.path(), Head::default(), Some(head), |line| {
        seen.push((line.seq, line.actor.clone(), line.object.clone()));
    });
    let proof = proof.unwrap().unwrap();
    assert_eq!((proof.entries, proof.head, proof.torn.len()), (9, again.head(), 0));
    assert_eq!(seen[8], (9, "token:ops".to_owned(), "ip:192.0.2.9".to_owned()));
    assert_eq!(head.to_string().parse(), Ok(head));
    assert!("7".parse::<Head>().is_err() && "7:xyz".parse::<Head>().is_err());
}

#[test]
fn every_changed_byte_is_found_and_the_entry_named() {
    let directory = tempfile::tempdir().unwrap();
    log(directory.path(), 5);
    let mut entry = 1;
    for (path, whole) in contents(directory.path()) {
        for at in 0..whole.len() {
            for changed in [whole[at] ^ (1 << (at % 8)), b'\n'].into_iter().take(1 + usize::from(at % 5 == 0))
            {
                let mut bytes = whole.clone();
                bytes[at] = changed;
                if bytes == whole {
                    continue;
                }
                fs::write(&path, &bytes).unwrap();
                let broken = verify(directory.path(), None).unwrap_err();
                assert_eq!(broken.entry, entry, "{broken}");
            }
            entry += u64::from(whole[at] == b'\n');
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(entry, 6);
}

#[test]
fn every_line_that_is_removed_repeated_moved_or_replaced_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let head = log(directory.path(), 8);
    let whole = contents(directory.path());
    let lines: Vec<(usize, Vec<u8>)> = whole
        .iter()
        .enumerate()
        .flat_map(|(file, (_, text))| text.split_inclusive(|b| *b == b'\n').map(move |l| (file, l.to_vec())))
        .collect();
    let put = |lines: &[(usize, Vec<u8>)]| {
        for (file, (path, _)) in whole.iter().enumerate() {
            let text: Vec<u8> =
                lines.iter().filter(|(at, _)| *at == file).flat_map(|(_, line)| line.clone()).collect();
            fs::write(path, text).unwrap();
        }
    };
    for at in 0..lines.len() {
        let number = at as u64 + 1;
        let mut removed = lines.clone();
        removed.remove(at);
        put(&removed);
        let broken = verify(directory.path(), Some(head)).unwrap_err();
        assert_eq!(broken.entry, number, "{broken}");
        // Without a noted head only the last one may go.
        assert_eq!(verify(directory.path(), None).is_ok(), number == 8);

        let mut repeated = lines.clone();
        repeated.insert(at, lines[at].clone());
        put(&repeated);
        assert!(verify(directory.path(), None).is_err());
        if at > 0 {
            let mut swapped = lines.clone();
            let (one, other) = (lines[at].1.clone(), lines[at - 1].1.clone());
            (swapped[at - 1].1, swapped[at].1) = (one, other);
            put(&swapped);
            assert_eq!(verify(directory.path(), None).unwrap_err().entry, number - 1);
        }
        // A forged entry with a hash of its own fits what is before it, and nothing behind.
        let (_, own) = line::read(lines[at].1.strip_suffix(b"\n").unwrap()).unwrap();
        let before = match at {
            0 => Head::default(),
            _ => line::read(lines[at - 1].1.strip_suffix(b"\n").unwrap()).unwrap().1,
        };
        let mut forged = lines.clone();
        forged[at].1 = line::write(&entry(99), before).0.into_bytes();
        put(&forged);
        match (verify(directory.path(), None), number) {
            (Ok(proof), 8) => assert_ne!(proof.head, own),
            (found, _) => assert_eq!(found.unwrap_err().entry, number + 1),
        }
        assert!(verify(directory.path(), Some(own)).is_err());
    }
    put(&lines);
    for (path, text) in &whole {
        fs::remove_file(path).unwrap();
        assert!(verify(directory.path(), Some(head)).is_err(), "{}", path.display());
        fs::write(path, text).unwrap();
    }
    assert!(verify(directory.path(), Some(head)).is_ok());
}

#[test]
fn what_a_crash_leaves_is_stated_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let head = log(directory.path(), 6);
    let (path, whole) = contents(directory.path()).pop().unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let is_whole = cut == 0 || ends.contains(&cut) || ends.contains(&(cut - 1));
        assert_eq!(verify(directory.path(), None).is_ok(), is_whole, "{cut}");
        assert_eq!(verify(directory.path(), Some(head)).is_ok(), cut + 1 >= whole.len(), "{cut}");
        let mut log = writer::Log::open(directory.path(), u64::MAX).unwrap();
        log.append(&[entry(50)]).unwrap();
        log.append(&[entry(51)]).unwrap();
        let proof = verify(directory.path(), None).unwrap();
        assert_eq!((proof.head, proof.torn.len()), (log.head(), usize::from(!is_whole)), "{cut}");
        if let Some(torn) = proof.torn.first() {
            assert_eq!(torn.stated_by, proof.head.seq - 2);
            // What was left is part of the chain from now on.
            let mut text = fs::read(&path).unwrap();
            let before = whole[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            text[before] ^= 1;
            fs::write(&path, &text).unwrap();
            assert!(verify(directory.path(), None).is_err());
            text.drain(before..=cut);
            fs::write(&path, &text).unwrap();
            assert!(verify(directory.path(), None).is_err());
        }
    }
}

#[test]
fn a_second_crash_while_the_first_is_stated_is_stated_too() {
    let directory = tempfile::tempdir().unwrap();
    log(directory.path(), 2);
    let (path, mut text) = contents(directory.path()).pop().unwrap();
    for rubbish in ["{\"seq\":3,\"at", "\n{\"seq\":3,", "\0\0\n\0"] {
        text.extend_from_slice(rubbish.as_bytes());
    }
    fs::write(&path, &text).unwrap();
    let mut log = writer::Log::open(directory.path(), ROTATE).unwrap();
    log.append(&[entry(3)]).unwrap();
    let proof = verify(directory.path(), None).unwrap();
    assert_eq!((proof.entries, proof.torn.len()), (4, 1));
    // Older files may be kept elsewhere: the proof goes on behind the last entry of those.
    let files = contents(directory.path());
    let mut heads = Vec::new();
    chain::verify(directory.path(), Head::default(), None, |line| heads.push(line.hash.clone()))
        .unwrap()
        .unwrap();
    assert_eq!(files.len(), 1);
    let after = Head { seq: 1, hash: blake3::Hash::from_hex(&heads[0]).unwrap() };
    let rest = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(&path, &fs::read(&path).unwrap()[rest..]).unwrap();
    assert!(verify(directory.path(), None).is_err());
    assert_eq!(chain::verify(directory.path(), after, None, |_| {}).unwrap().unwrap().entries, 3);
}

#[tokio::test]
async fn what_the_disk_does_not_take_waits_and_what_is_lost_is_stated() {
    let directory = tempfile::tempdir().unwrap();
    let audit = Audit::start(directory.path(), ROTATE).unwrap();
    audit.record(entry(1));
    assert!(audit.settled().await);
    let first = audit.standing();
    assert_eq!((first.seq, first.lost, first.failing), (1, 0, false));
    // Full files are left alone; the next one cannot be made in a directory that is gone.
    let away = directory.path().with_extension("away");
    audit.record(entry(2));
    audit.record(entry(3));
    assert!(audit.settled().await);
    fs::rename(directory.path(), &away).unwrap();
    for number in 4..=8 {
        audit.record(entry(number));
    }
    audit.settled().await;
    audit.record(entry(9));
    assert!(!audit.settled().await);
    assert!(audit.standing().failing && audit.standing().lost == 0);
    fs::rename(&away, directory.path()).unwrap();
    audit.shared.overflowed.store(2, Ordering::Relaxed);
    audit.record(entry(10));
    assert!(audit.settled().await);
    let mut last = Vec::new();
    let proof = chain::verify(directory.path(), Head::default(), None, |line| {
        last = vec![line.action.clone(), line.after.to_string()];
    });
    assert_eq!(proof.unwrap().unwrap().entries, 11);
    assert_eq!(last, ["audit.lost", "{\"entries\":2}"]);
    assert!(!audit.standing().failing);
}
