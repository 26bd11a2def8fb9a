//! `token`: makes the tokens that clients present.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::error::{Error, Result};
use crate::http;

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, print it once, and add its hash to a file
    New {
        /// Whose it is: a word, for the line in the file
        name: String,
        /// The file, as in `http.tokens_file`; it is made if it is missing
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
}

pub(super) fn run(command: &TokenCommand) -> Result<()> {
    let TokenCommand::New { name, file } = command;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '#') {
        return Err(Error::definition(format!("`{name}` is not a word")));
    }
    let (token, line) = http::new_token(name);
    append(file, &line)
        .map_err(|error| Error::external(format!("cannot write to {}", file.display())).detail(error))?;
    println!("{}", token.reveal());
    Ok(())
}

fn append(file: &Path, line: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(file)?;
    writeln!(file, "{line}")
}
