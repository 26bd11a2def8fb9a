//! The writer's schema against the reader's, by Avro's rules: the same that [`Plan`] goes by, but with words.

use apache_avro::Schema;
use apache_avro::schema::{RecordSchema, ResolvedSchema};

use super::{below, word};
use crate::codec::avro::plan::{At, Base, Names, Plan, base};
use crate::codec::fit::Misfit;

/// How deep schemas are compared: they may contain themselves.
const DEPTH_MAX: usize = 16;

/// Where data of `writer` can't be resolved to `reader`.
pub(super) fn compare(writer: &Schema, reader: &Schema) -> Vec<Misfit> {
    let (Ok(writers), Ok(readers)) = (ResolvedSchema::new(writer), ResolvedSchema::new(reader)) else {
        return Vec::new();
    };
    let mut rules = Rules {
        writers: writers.get_names(),
        readers: readers.get_names(),
        misfits: Vec::new(),
    };
    rules.compare(At::root(writer), At::root(reader), "", true, 0);
    // The plan has the last word on whether anything can be read at all.
    if Plan::resolve(writer, reader).is_none() && !rules.misfits.iter().any(|misfit| misfit.every) {
        rules.add(
            "",
            "the registry's schema can't be resolved to the reader's".into(),
            "give the reader's fields defaults and aliases".into(),
            true,
        );
    }
    rules.misfits
}

struct Rules<'r, 's> {
    writers: &'r Names<'s>,
    readers: &'r Names<'s>,
    misfits: Vec<Misfit>,
}

impl<'s> Rules<'_, 's> {
    fn add(&mut self, path: &str, problem: String, remedy: String, every: bool) {
        self.misfits.push(Misfit {
            path: path.to_owned(),
            problem,
            remedy,
            every,
        });
    }

    /// `every`: whether each datum has this place.
    fn compare(&mut self, w: At<'s>, r: At<'s>, path: &str, every: bool, depth: usize) {
        let (Some(w), Some(r)) = (w.follow(self.writers), r.follow(self.readers)) else {
            return;
        };
        if depth > DEPTH_MAX {
            return;
        }
        match (base(w.schema), base(r.schema)) {
            (Base::Union(branches), _) => {
                let nullable = |schema: &Schema| matches!(base(schema), Base::Union(all) if all.iter().any(|one| matches!(base(one), Base::Null)));
                let (mut fitting, all) = (0, branches.len());
                for branch in branches {
                    let is_null = matches!(base(branch), Base::Null);
                    if is_null && !nullable(r.schema) && !matches!(base(r.schema), Base::Null) {
                        let problem = format!("may be null, and the reader's {} may not", word(r.schema));
                        self.add(path, problem, "make the reader's a union with null".into(), false);
                        continue;
                    }
                    let before = self.misfits.len();
                    self.compare(w.within(branch), r, path, false, depth + 1);
                    fitting += usize::from(self.misfits.len() == before);
                }
                if fitting == 0 && all > 0 && every {
                    self.misfits
                        .iter_mut()
                        .filter(|misfit| misfit.path == path)
                        .for_each(|misfit| misfit.every = true);
                }
            }
            (_, Base::Union(branches)) => {
                let apart = |branch: &&Schema| self.apart(w, r.within(branch)).is_none();
                match branches.iter().find(apart) {
                    Some(branch) => self.compare(w, r.within(branch), path, every, depth + 1),
                    None => {
                        let problem = format!(
                            "the registry has {}, the reader's {}",
                            word(w.schema),
                            word(r.schema)
                        );
                        self.add(
                            path,
                            problem,
                            format!("add {} to the union", word(w.schema)),
                            every,
                        );
                    }
                }
            }
            (Base::Record(ours), Base::Record(theirs)) => {
                if let Some((problem, remedy)) = self.apart(w, r) {
                    self.add(path, problem, remedy, every);
                }
                self.fields((w, ours), (r, theirs), path, every, depth);
            }
            (Base::Array(ours), Base::Array(theirs)) => {
                self.compare(
                    w.within(ours),
                    r.within(theirs),
                    &format!("{path}[]"),
                    false,
                    depth + 1,
                );
            }
            (Base::Map(ours), Base::Map(theirs)) => {
                self.compare(
                    w.within(ours),
                    r.within(theirs),
                    &format!("{path}{{}}"),
                    false,
                    depth + 1,
                );
            }
            (Base::Enum(ours), Base::Enum(theirs)) if theirs.default.is_none() => {
                let gone: Vec<_> = ours
                    .symbols
                    .iter()
                    .filter(|symbol| !theirs.symbols.contains(symbol))
                    .collect();
                if let Some(first) = gone.first() {
                    let problem =
                        format!("the registry's enum has the symbol `{first}`, the reader's has not");
                    let remedy = "add it, or give the reader's enum a default".to_owned();
                    self.add(path, problem, remedy, every && gone.len() == ours.symbols.len());
                }
            }
            _ => {
                if let Some((problem, remedy)) = self.apart(w, r) {
                    self.add(path, problem, remedy, every);
                }
            }
        }
    }

    fn fields(
        &mut self,
        (w, ours): (At<'s>, &'s RecordSchema),
        (r, theirs): (At<'s>, &'s RecordSchema),
        path: &str,
        every: bool,
        depth: usize,
    ) {
        for field in &theirs.fields {
            let at = below(path, &field.name);
            let mut names = std::iter::once(&field.name).chain(&field.aliases);
            let own = names.find_map(|name| ours.fields.iter().find(|own| &own.name == name));
            match own {
                Some(own) => self.compare(
                    w.within(&own.schema),
                    r.within(&field.schema),
                    &at,
                    every,
                    depth + 1,
                ),
                None if field.default.is_some() => {}
                None => {
                    let known = |own: &&apache_avro::schema::RecordField| {
                        theirs.fields.iter().any(|field| field.name == own.name)
                    };
                    let renamed = (ours.fields.iter().filter(|own| !known(own)))
                        .max_by(|a, b| {
                            similar(&a.name, &field.name).total_cmp(&similar(&b.name, &field.name))
                        })
                        .map(|own| format!(", or, if it was `{0}` once, the alias `{0}`", own.name));
                    let problem =
                        "the registry's schema has no such field, and the reader's gives no default"
                            .to_owned();
                    self.add(
                        &at,
                        problem,
                        format!("give it a default{}", renamed.unwrap_or_default()),
                        every,
                    );
                }
            }
        }
    }

    /// Why one can't become the other, themselves: not what is within them.
    fn apart(&self, w: At<'s>, r: At<'s>) -> Option<(String, String)> {
        let r = r.follow(self.readers)?;
        let fits = match (base(w.schema), base(r.schema)) {
            (Base::Record(ours), Base::Record(theirs)) => {
                named(&ours.name, &theirs.name, theirs.aliases.as_deref())
            }
            (Base::Enum(ours), Base::Enum(theirs)) => {
                named(&ours.name, &theirs.name, theirs.aliases.as_deref())
            }
            (Base::Fixed(ours), Base::Fixed(theirs)) => {
                ours.size == theirs.size && named(&ours.name, &theirs.name, theirs.aliases.as_deref())
            }
            (Base::Int, Base::Long | Base::Float | Base::Double)
            | (Base::Long, Base::Float | Base::Double)
            | (Base::Float, Base::Double)
            | (Base::String, Base::Bytes)
            | (Base::Bytes, Base::String) => true,
            (ours, theirs) => std::mem::discriminant(&ours) == std::mem::discriminant(&theirs),
        };
        if fits {
            return None;
        }
        let may = match base(w.schema) {
            Base::Int => "Avro promotes int to long, float and double",
            Base::Long => "Avro promotes long to float and double",
            Base::Float => "Avro promotes float to double",
            Base::String => "Avro reads string as bytes, and as nothing else",
            Base::Bytes => "Avro reads bytes as string, and as nothing else",
            Base::Record(_) | Base::Enum(_) | Base::Fixed(_) => {
                "the names have to be alike, or the reader's has the other as an alias"
            }
            _ => "Avro has no promotion for it",
        };
        Some((
            format!(
                "the registry has {}, the reader's {}",
                word(w.schema),
                word(r.schema)
            ),
            may.to_owned(),
        ))
    }
}

fn named(
    ours: &apache_avro::schema::Name,
    theirs: &apache_avro::schema::Name,
    aliases: Option<&[apache_avro::schema::Alias]>,
) -> bool {
    ours.name() == theirs.name()
        || aliases
            .unwrap_or_default()
            .iter()
            .any(|alias| alias.name() == ours.name())
}

fn similar(a: &str, b: &str) -> f64 {
    strsim::jaro_winkler(a, b)
}
