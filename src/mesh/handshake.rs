//! Who may join a cluster.
//!
//! ```text
//!   dialer ── Hello: who I am, whom I mean, a nonce ─────────────▶ acceptor
//!          ◀─ Challenge: a nonce, and a proof of the secret ──────
//!          ── Proof of the secret ───────────────────────────────▶
//!          ◀─ Welcome: the run, and where it starts ──────────────          or Refused: why
//! ```
//!
//! A proof is a keyed BLAKE3 hash over the hello, the acceptor's nonce and the prover's role, so neither end
//! can be made to prove anything by sending back what it sent. Without a secret the key is that of the empty
//! text, and the handshake only tells clusters apart.

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// The version of the protocol.
pub(crate) const VERSION: u32 = 1;

/// What a connection carries, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Channel {
    /// Timely's messages, to the acceptor.
    DataToAcceptor,
    /// Timely's messages, to the dialer.
    DataToDialer,
    /// Control messages, to the acceptor.
    ControlToAcceptor,
    /// Control messages, to the dialer.
    ControlToDialer,
}

impl Channel {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [
        Self::DataToAcceptor,
        Self::DataToDialer,
        Self::ControlToAcceptor,
        Self::ControlToDialer,
    ];
}

/// What all processes of a cluster have to have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The application and the dataflow.
    pub name: String,
    /// Number of processes.
    pub processes: u32,
    /// Number of workers in each process.
    pub workers: u32,
    /// The build, for people.
    pub build: String,
    /// A hash of the plan.
    pub plan: u64,
}

/// A process's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// See [`Identity`].
    pub identity: Identity,
    /// The dialer.
    pub from: u32,
    /// The process that it means to reach.
    pub to: u32,
    /// What the connection is for.
    pub channel: Channel,
    /// The run that the dialer belongs to; `None` if it is to learn it.
    pub run: Option<u64>,
    /// Random.
    pub nonce: [u8; 32],
}

/// The acceptor's answer to a hello: the dialer has to prove that it knows the secret, and sees here that the
/// acceptor does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Challenge {
    /// Random.
    pub nonce: [u8; 32],
    /// The acceptor's proof.
    pub proof: [u8; 32],
}

/// The last message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Welcome {
    /// The connection is established.
    Joined {
        /// The run.
        run: u64,
        /// Where the run starts; from process 0 only.
        start: Vec<u8>,
    },
    /// It may not join.
    Refused(String),
}

/// Who proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The process that opened the connection.
    Dialer,
    /// The process that accepted it.
    Acceptor,
}

/// The key that all proofs of a cluster are made with.
#[derive(Clone)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The key of a secret.
    pub(crate) fn of(secret: Option<&Secret>) -> Self {
        let secret = secret.map_or("", Secret::reveal);
        Self(blake3::derive_key(
            "thalweg 2026 mesh handshake",
            secret.as_bytes(),
        ))
    }

    /// Proves knowledge of the secret, to the sender of `hello` or to that of `nonce`.
    pub(crate) fn prove(&self, role: Role, hello: &[u8], nonce: &[u8; 32]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(match role {
            Role::Dialer => b"dialer",
            Role::Acceptor => b"accept",
        });
        hasher.update(nonce);
        hasher.update(hello);
        *hasher.finalize().as_bytes()
    }

    /// Whether a proof is right. Takes the same time wherever it differs.
    pub(crate) fn is_proven(&self, role: Role, hello: &[u8], nonce: &[u8; 32], proof: &[u8; 32]) -> bool {
        blake3::Hash::from_bytes(self.prove(role, hello, nonce)) == blake3::Hash::from_bytes(*proof)
    }
}

/// What an acceptor knows about itself.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    /// See [`Identity`].
    pub identity: Identity,
    /// Its index.
    pub process: u32,
    /// The run that it belongs to.
    pub run: u64,
}

impl Acceptor {
    /// Why a dialer may not join, if it may not.
    pub(crate) fn refusal(&self, hello: &Hello) -> Option<String> {
        let (own, theirs) = (&self.identity, &hello.identity);
        if hello.version != VERSION {
            return Some(format!(
                "it speaks version {} of the protocol; this is {VERSION}",
                hello.version
            ));
        }
        if theirs.name != own.name {
            return Some(format!("it belongs to `{}`; this is `{}`", theirs.name, own.name));
        }
        if hello.to != self.process {
            return Some(format!(
                "it takes this process for process {}; this is {}: are the lists of hosts the same?",
                hello.to, self.process
            ));
        }
        if theirs.processes != own.processes {
            return Some(format!(
                "its cluster has {} processes; this one has {}",
                theirs.processes, own.processes
            ));
        }
        if hello.from <= self.process || hello.from >= own.processes {
            return Some(format!(
                "process {} does not connect to process {}",
                hello.from, self.process
            ));
        }
        if theirs.workers != own.workers {
            return Some(format!(
                "it has {} workers; this process has {}",
                theirs.workers, own.workers
            ));
        }
        if theirs.build != own.build {
            return Some(format!("it runs {}; this is {}", theirs.build, own.build));
        }
        if theirs.plan != own.plan {
            return Some("its dataflow has other steps: are all settings the same?".into());
        }
        match hello.run {
            Some(run) if run != self.run => Some("it belongs to another run of the cluster".into()),
            None if self.process > 0 => Some("it has not joined process 0".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            name: "shop/spend".into(),
            processes: 3,
            workers: 2,
            build: "thalweg 1 (ab)".into(),
            plan: 7,
        }
    }

    fn hello(from: u32, to: u32) -> Hello {
        Hello {
            version: VERSION,
            identity: identity(),
            from,
            to,
            channel: Channel::DataToAcceptor,
            run: (to > 0).then_some(5),
            nonce: [1; 32],
        }
    }

    fn acceptor(process: u32) -> Acceptor {
        Acceptor {
            identity: identity(),
            process,
            run: 5,
        }
    }

    #[test]
    fn peers_of_one_run_may_join() {
        assert_eq!(acceptor(0).refusal(&hello(1, 0)), None);
        assert_eq!(acceptor(0).refusal(&hello(2, 0)), None);
        assert_eq!(acceptor(1).refusal(&hello(2, 1)), None);
    }

    #[test]
    fn others_are_told_why_they_may_not() {
        let changed = |change: fn(&mut Hello)| {
            let mut hello = hello(2, 1);
            change(&mut hello);
            acceptor(1).refusal(&hello).expect("it is refused")
        };
        let cases: [(fn(&mut Hello), &str); 10] = [
            (|hello| hello.version = 9, "version 9"),
            (|hello| hello.identity.name = "shop/other".into(), "`shop/other`"),
            (|hello| hello.to = 0, "lists of hosts"),
            (|hello| hello.identity.processes = 4, "4 processes"),
            (|hello| hello.from = 1, "does not connect"),
            (|hello| hello.from = 3, "does not connect"),
            (|hello| hello.identity.workers = 1, "1 workers"),
            (|hello| hello.identity.build.push('c'), "thalweg 1 (ab)c"),
            (|hello| hello.identity.plan = 8, "other steps"),
            (|hello| hello.run = Some(4), "another run"),
        ];
        for (change, expected) in cases {
            let why = changed(change);
            assert!(why.contains(expected), "{why}");
        }
        assert!(changed(|hello| hello.run = None).contains("process 0"));
    }

    #[test]
    fn a_proof_holds_for_one_secret_role_hello_and_nonce() {
        let key = Key::of(Some(&Secret::new("open sesame")));
        let proof = key.prove(Role::Dialer, b"hello", &[2; 32]);
        assert!(key.is_proven(Role::Dialer, b"hello", &[2; 32], &proof));
        assert!(!key.is_proven(Role::Acceptor, b"hello", &[2; 32], &proof));
        assert!(!key.is_proven(Role::Dialer, b"hellO", &[2; 32], &proof));
        assert!(!key.is_proven(Role::Dialer, b"hello", &[3; 32], &proof));
        let other = Key::of(Some(&Secret::new("open barley")));
        assert!(!other.is_proven(Role::Dialer, b"hello", &[2; 32], &proof));
        assert!(!Key::of(None).is_proven(Role::Dialer, b"hello", &[2; 32], &proof));
    }
}
