//! Signed notes (C2SP signed-note) with Ed25519, and the checkpoints (C2SP tlog-checkpoint) that are written in them.
//!
//! A note is text, an empty line, and lines `— NAME BASE64(key hash || signature)`. A checkpoint's text is the origin,
//! the number of records, the root, and then lines of ours: `checkpoint N`, `time …`, `boot ID NANOS`, `interval S`,
//! `state open|closed`. Pure.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::merkle::Hash;
use crate::model::Time;

/// Algorithm byte of Ed25519 in C2SP signed-note.
const ED25519: u8 = 1;
/// Longest note that is read.
const NOTE_MAX: usize = 64 << 10;

/// What is wrong with a note or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It does not have the form.
    #[error("not a {0}")]
    Form(&'static str),
    /// No signature of a known key.
    #[error("not signed by {0}")]
    OtherKey(String),
    /// A signature of a known key that does not fit the text.
    #[error("the signature does not fit the text")]
    BadSignature,
}

/// A public key with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// Under a name without spaces and `+`.
    #[must_use]
    pub fn new(name: &str, key: VerifyingKey) -> Self {
        let name = name.replace(|c: char| c.is_whitespace() || c == '+', "-");
        Self { name, key }
    }

    /// From `NAME+HASH+BASE64`.
    ///
    /// # Errors
    /// When it is none, or the hash does not fit.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let form = || NoteError::Form("verifier key (NAME+HASH+BASE64)");
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        let bytes = BASE64.decode(key).ok().ok_or_else(form)?;
        let Some((&ED25519, key)) = bytes.split_first() else { return Err(form()) };
        let key: [u8; 32] = key.try_into().ok().ok_or_else(form)?;
        let key = VerifyingKey::from_bytes(&key).ok().ok_or_else(form)?;
        let plain = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
        let parsed = Self { name: name.to_owned(), key };
        if plain && hash == parsed.hash_hex() { Ok(parsed) } else { Err(form()) }
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Four bytes that say which key signed.
    fn hash(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        digest.first_chunk::<4>().copied().unwrap_or_default()
    }

    /// The key hash as text.
    #[must_use]
    pub fn hash_hex(&self) -> String {
        self.hash().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ED25519];
        bytes.extend(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, self.hash_hex(), BASE64.encode(bytes))
    }
}

/// A key that signs. Its secret is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().hash_hex())
    }
}

impl SecretKey {
    /// From 32 random bytes.
    #[must_use]
    pub fn new(name: &str, seed: &[u8; 32]) -> Self {
        let public = PublicKey::new(name, VerifyingKey::from(&SigningKey::from_bytes(seed)));
        Self { name: public.name, key: SigningKey::from_bytes(seed) }
    }

    /// From `PRIVATE+KEY+NAME+HASH+BASE64`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let form = || NoteError::Form("signing key (PRIVATE+KEY+NAME+HASH+BASE64)");
        let rest = text.trim().strip_prefix("PRIVATE+KEY+").ok_or_else(form)?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(hash), Some(seed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        let bytes = BASE64.decode(seed).ok().ok_or_else(form)?;
        let Some((&ED25519, seed)) = bytes.split_first() else { return Err(form()) };
        let key = Self::new(name, seed.try_into().ok().ok_or_else(form)?);
        if key.public().hash_hex() == hash { Ok(key) } else { Err(form()) }
    }

    /// The form in which it is kept.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = vec![ED25519];
        bytes.extend(self.key.as_bytes());
        format!("PRIVATE+KEY+{}+{}+{}", self.name, self.public().hash_hex(), BASE64.encode(bytes))
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// The same key under another name.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        let public = PublicKey::new(name, self.key.verifying_key());
        Self { name: public.name, key: self.key.clone() }
    }

    /// A note over `text`, which must end with a line end.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let public = self.public();
        let mut bytes = public.hash().to_vec();
        bytes.extend(self.key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n\u{2014} {} {}\n", public.name, BASE64.encode(bytes))
    }
}

/// The text of a note that one of `keys` signed, and which.
///
/// # Errors
/// When it has no good signature of any of them.
pub fn open<'a, 'k>(note: &'a str, keys: &'k [PublicKey]) -> Result<(&'a str, &'k PublicKey), NoteError> {
    let form = NoteError::Form("signed note");
    if note.len() > NOTE_MAX {
        return Err(form);
    }
    let Some(at) = note.rfind("\n\n") else { return Err(form) };
    let (Some(text), Some(signatures)) = (note.get(..=at), note.get(at + 2..)) else { return Err(form) };
    let mut other = None;
    for line in signatures.lines() {
        let Some((name, value)) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.rsplit_once(' '))
        else {
            return Err(form);
        };
        let bytes = BASE64.decode(value).ok().ok_or(NoteError::Form("signed note"))?;
        let Some((hash, signature)) = bytes.split_first_chunk::<4>() else { return Err(form) };
        let Some(key) = keys.iter().find(|key| key.hash() == *hash && key.name == name) else {
            other.get_or_insert_with(|| format!("a known key, but by {name}"));
            continue;
        };
        let good = Signature::from_slice(signature)
            .is_ok_and(|signature| key.key.verify_strict(text.as_bytes(), &signature).is_ok());
        return if good { Ok((text, key)) } else { Err(NoteError::BadSignature) };
    }
    Err(other.map_or(form, NoteError::OtherKey))
}

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Records it seals.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Its number in this log, from 1, without holes.
    pub number: u64,
    /// When it was made.
    pub time: Time,
    /// Boot of the host, and nanoseconds since.
    pub boot: (String, u64),
    /// Seconds after which the next one is due.
    pub interval: u64,
    /// The writer ended in good order with it.
    pub closed: bool,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self { origin, size, root, number, time, boot, interval, closed } = self;
        let state = if *closed { "closed" } else { "open" };
        format!(
            "{origin}\n{size}\n{}\ncheckpoint {number}\ntime {time}\nboot {} {}\ninterval {interval}\nstate {state}\n",
            BASE64.encode(root),
            boot.0,
            boot.1
        )
    }

    /// Reads the text of a note.
    ///
    /// # Errors
    /// When it is no checkpoint of this form.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        Self::read(text).ok_or(NoteError::Form("checkpoint"))
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let origin = lines.next().filter(|line| !line.is_empty())?.to_owned();
        let size = lines.next()?.parse().ok()?;
        let root: Hash = BASE64.decode(lines.next()?).ok()?.try_into().ok()?;
        let mut word = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        let number = word("checkpoint")?.parse().ok()?;
        let time = word("time")?.parse().ok()?;
        let boot = word("boot")?;
        let (boot_id, nanos) = boot.split_once(' ')?;
        let interval = word("interval")?.parse().ok()?;
        let closed = match word("state")?.as_str() {
            "open" => false,
            "closed" => true,
            _ => return None,
        };
        let boot = (boot_id.to_owned(), nanos.parse().ok()?);
        Some(Self { origin, size, root, number, time, boot, interval, closed })
    }
}

/// First line of the note by which an old key names the new one.
const ROTATION: &str = "agent-monitor key rotation";

/// The note by which `old` hands over to `new`.
#[must_use]
pub fn rotation(old: &SecretKey, new: &PublicKey, time: Time) -> String {
    old.sign(&format!("{ROTATION}\nold {}\nnew {new}\ntime {time}\n", old.public()))
}

/// The key to which a rotation note of one of `keys` hands over, and the one that does.
///
/// # Errors
/// When it is no such note.
pub fn open_rotation<'k>(note: &str, keys: &'k [PublicKey]) -> Result<(PublicKey, &'k PublicKey), NoteError> {
    let (text, signer) = open(note, keys)?;
    let mut lines = text.lines();
    let form = NoteError::Form("key rotation");
    if lines.next() != Some(ROTATION) {
        return Err(form);
    }
    let old = lines.next().and_then(|line| line.strip_prefix("old "));
    let new = lines.next().and_then(|line| line.strip_prefix("new "));
    match (old, new) {
        (Some(old), Some(new)) if PublicKey::parse(old)? == *signer => Ok((PublicKey::parse(new)?, signer)),
        _ => Err(form),
    }
}

#[cfg(test)]
mod forged_tests;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "agent-monitor/host/1".to_owned(),
            size: 5,
            root: [3; 32],
            number: 9,
            time: Time::EPOCH,
            boot: ("b".to_owned(), 7),
            interval: 10,
            closed: true,
        }
    }

    #[test]
    fn a_checkpoint_is_read_back_and_no_other_key_passes() {
        let key = SecretKey::new("log host", &[1; 32]);
        let note = key.sign(&checkpoint().to_text());
        let (text, signer) = open(&note, &[key.public()]).map(|(t, k)| (t.to_owned(), k.clone())).unwrap();
        assert_eq!((Checkpoint::parse(&text), signer.name()), (Ok(checkpoint()), "log-host"));
        let other = SecretKey::new("log-host", &[2; 32]);
        assert!(matches!(open(&note, &[other.public()]), Err(NoteError::OtherKey(_))));
        assert_eq!(open(&note.replacen("\n5\n", "\n6\n", 1), &[key.public()]), Err(NoteError::BadSignature));
    }

    /// The example key of C2SP signed-note and Go's `sumdb/note`.
    #[test]
    fn keys_have_the_form_that_others_read() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = PublicKey::parse(text).unwrap();
        assert_eq!((key.name(), key.to_string().as_str()), ("PeterNeumann", text));
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert!(open(note, &[key]).is_ok());
        let secret = SecretKey::new("a", &[4; 32]);
        assert_eq!(SecretKey::parse(&secret.to_text()).unwrap().public(), secret.public());
        assert!(!format!("{secret:?}").contains("PRIVATE"));
    }

    #[test]
    fn an_old_key_hands_over_once_to_the_named_one() {
        let (old, new) = (SecretKey::new("k", &[1; 32]), SecretKey::new("k", &[2; 32]));
        let note = rotation(&old, &new.public(), Time::EPOCH);
        assert_eq!(open_rotation(&note, &[old.public()]).unwrap().0, new.public());
        assert!(open_rotation(&note, &[new.public()]).is_err());
        assert!(open_rotation(&old.sign(&checkpoint().to_text()), &[old.public()]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "\\PC{0,80}(\n\n)?(— [a-z]{0,3} [A-Za-z0-9=]{0,100}\n)?") {
            drop(open(&text, &[SecretKey::new("a", &[1; 32]).public()]));
            drop(Checkpoint::parse(&text));
            drop(PublicKey::parse(&text));
        }
    }
}
