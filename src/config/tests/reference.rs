//! The page docs/settings.md, made from the table.

use std::fmt::Write;

use crate::config::table::{properties, settings, source_settings};
use crate::setting::properties::PropertyKind;
use crate::source::setting::SettingScope;

const HEAD: &str = "\
# Settings

<!-- Generated from src/config/table.rs and src/connect/. After a change there: BLESS=1 cargo test --lib config -->

A setting comes from a file, an environment variable or the command line. Later ones in this table win:

| source | |
|---|---|
| TOML file | `--config FILE` (or `THALWEG_CONFIG`), else `thalweg.toml` in the working directory, if it exists. `demo` reads a file only if it is named |
| environment variable | the name below; an empty variable counts as not set |
| flag | the flag below, or `--set NAME=VALUE` for any setting |

```toml
workers = 4
epoch_interval = \"10ms\"

[kafka]
bootstrap = \"broker-1:9093,broker-2:9093\"

[kafka.properties]
security.protocol = \"SASL_SSL\"
sasl.mechanism = \"SCRAM-SHA-512\"
sasl.username = \"thalweg\"
sasl.password_file = \"/run/secrets/kafka\"
ssl.ca.location = \"/etc/ssl/kafka-ca.pem\"

[registry]
url = \"https://registry:8081\"
username = \"thalweg\"
password_file = \"/run/secrets/registry\"

[sources.payments]
lateness = \"30s\"
```

Durations are written `250ms`, `5s`, `1m30s`, `7d`; sizes `64MiB`, `64MB`, or in bytes. Paths are relative to the working
directory. An unknown name, a wrong type or a value out of range is an error that names the file and line, and all errors are
reported at once. An unknown environment variable is a warning of `check`, since it may belong to another program.

`thalweg check` takes the same settings. It prints the settings in force and where each value comes from, verifies that topics,
schemas and the ledger fit, and changes nothing.

A **secret** (marked below) is never shown in logs, errors, `check` or metrics. It may be read from a file: append `_file` to the
name of the setting. It cannot be given on the command line, which every user of the machine can see.

## All settings

| name | default | value | variable | flag | meaning |
|---|---|---|---|---|---|
";

const SOURCES: &str = "
## Source settings

The section `[sources.NAME]` sets these for the source of that name. They override what the dataflow says. State in a
checkpoint stays as it is; they apply to records after it.

| name | value | applies to | meaning |
|---|---|---|---|
";

const REFUSED_HEAD: &str = "
These may not be set:

| property | reason |
|---|---|
";

/// The whole page.
pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    for setting in settings() {
        let flag = setting
            .flag
            .as_ref()
            .map_or(String::new(), |flag| format!("`--{}`", flag.name));
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let form = if setting.is_secret() {
            "**secret**".to_owned()
        } else {
            setting.kind.expected()
        };
        let mut variable = format!("`{}`", setting.variable());
        if let Some(also) = setting.also {
            variable += &format!(", `{also}`");
        }
        line(
            &mut page,
            &[
                &format!("`{}`", setting.name),
                &default,
                &form,
                &variable,
                &flag,
                setting.doc,
            ],
        );
    }
    page += SOURCES;
    for (connector, setting) in source_settings() {
        let form = setting.kind.form();
        let kind = match setting.of {
            SettingScope::All => None,
            SettingScope::Streams(_) => Some("streams"),
            SettingScope::Tables(_) => Some("tables"),
        };
        let of = match (kind, connector.map(|connector| connector.log())) {
            (None, None) => "all".to_owned(),
            (Some(kind), None) => kind.to_owned(),
            (None, Some(log)) => format!("{log}s"),
            (Some(kind), Some(log)) => format!("{kind} of {log}s"),
        };
        line(
            &mut page,
            &[&format!("`{}`", setting.name), &form, &of, setting.doc],
        );
    }
    for properties in properties() {
        writeln!(page, "\n{}", properties.doc).expect("a string takes all");
        for property in properties.known {
            let about = match property.kind {
                PropertyKind::Plain => String::new(),
                PropertyKind::Secret => " (**secret**)".to_owned(),
                PropertyKind::Path => " (an existing file)".to_owned(),
                PropertyKind::OneOf(words) => format!(" ({})", words.join(", ")),
            };
            writeln!(page, "* `{}`{about}", property.name).expect("a string takes all");
        }
        page += REFUSED_HEAD;
        for (name, reason) in properties.refused {
            line(&mut page, &[&format!("`{name}`"), reason]);
        }
    }
    page
}

fn line(page: &mut String, cells: &[&str]) {
    writeln!(page, "| {} |", cells.join(" | ")).expect("a string takes all");
}
