//! The writer's schema against the reader's, by Avro's rules, with words. What resolves is what the
//! [`Resolution`] says that the plans are made from; here it is only told why something does not.

use crate::codec::avro::resolve::{Resolution, sources};
use crate::codec::avro::schema::{NodeId, NodeKind, Record, Schema};
use crate::codec::compatibility::Incompatibility;
use crate::codec::compatibility::words::below;
use crate::suggest::nearest;

/// How deep schemas are compared: they may contain themselves.
const DEPTH_MAX: usize = 16;

/// Where data of `writer` can't be resolved to `reader`.
pub(super) fn compare(writer: &Schema, reader: &Schema) -> Vec<Incompatibility> {
    let resolution = Resolution::of(writer, reader);
    let (w, r) = (writer.root(), reader.root());
    let mut rules = ResolutionRules {
        resolves: resolution.resolves(w, r),
        resolution,
        incompatibilities: Vec::new(),
    };
    rules.compare(w, r, "", true, 0);
    // Deep below something may be wrong that is not compared any more.
    if !rules.resolves
        && !rules
            .incompatibilities
            .iter()
            .any(|incompatibility| incompatibility.every)
    {
        rules.add(
            "",
            "the registry's schema can't be resolved to the reader's".into(),
            "give the reader's fields defaults and aliases".into(),
            true,
        );
    }
    rules.incompatibilities
}

struct ResolutionRules<'s> {
    resolution: Resolution<'s>,
    /// Whether any record resolves at all.
    resolves: bool,
    incompatibilities: Vec<Incompatibility>,
}

impl<'s> ResolutionRules<'s> {
    fn add(&mut self, path: &str, problem: String, remedy: String, every: bool) {
        self.incompatibilities.push(Incompatibility {
            path: path.to_owned(),
            problem,
            remedy,
            every,
        });
    }

    /// `every`: whether each datum has this place.
    fn compare(&mut self, w: NodeId, r: NodeId, path: &str, every: bool, depth: usize) {
        let Resolution { writer, reader, .. } = self.resolution;
        if depth > DEPTH_MAX {
            return;
        }
        match (writer.kind(w), reader.kind(r)) {
            (NodeKind::Union(branches), _) => self.union(branches, r, path, every, depth),
            (_, NodeKind::Union(branches)) => self.branch((w, r), branches, path, every, depth),
            (NodeKind::Record(ours), NodeKind::Record(theirs)) => {
                self.apart(w, r, path, every);
                self.fields(ours, theirs, path, every, depth);
            }
            (NodeKind::Array(ours), NodeKind::Array(theirs)) => {
                self.compare(*ours, *theirs, &format!("{path}[]"), false, depth + 1);
            }
            (NodeKind::Map(ours), NodeKind::Map(theirs)) => {
                self.compare(*ours, *theirs, &format!("{path}{{}}"), false, depth + 1);
            }
            (NodeKind::Enum(ours), NodeKind::Enum(theirs)) if theirs.name.takes(&ours.name) => {
                if theirs.default.is_some() {
                    return;
                }
                let gone = |symbol: &&String| !theirs.symbols.contains(symbol);
                if let Some(first) = ours.symbols.iter().find(gone) {
                    let problem =
                        format!("the registry's enum has the symbol `{first}`, the reader's has not");
                    let remedy = "add it, or give the reader's enum a default".to_owned();
                    let all = ours.symbols.iter().all(|symbol| gone(&symbol));
                    self.add(path, problem, remedy, every && all);
                }
            }
            _ => self.apart(w, r, path, every),
        }
    }

    /// A writer's union: some records are of each branch.
    fn union(&mut self, branches: &[NodeId], r: NodeId, path: &str, every: bool, depth: usize) {
        let Resolution { writer, reader, .. } = self.resolution;
        let begin = self.incompatibilities.len();
        for branch in branches {
            if *writer.kind(*branch) == NodeKind::Null && !reader.nullable(r) {
                let problem = format!("may be null, and the reader's {} may not", reader.word(r));
                self.add(path, problem, "make the reader's a union with null".into(), false);
            } else {
                self.compare(*branch, r, path, false, depth + 1);
            }
        }
        if every && !branches.iter().any(|branch| self.resolution.resolves(*branch, r)) {
            self.incompatibilities[begin..]
                .iter_mut()
                .for_each(|incompatibility| incompatibility.every = true);
        }
    }

    /// A reader's union: one branch is taken, or else there is none to take.
    fn branch(
        &mut self,
        (w, r): (NodeId, NodeId),
        branches: &[NodeId],
        path: &str,
        every: bool,
        depth: usize,
    ) {
        let Resolution { writer, reader, .. } = self.resolution;
        // Where none resolves, what keeps the one from it that would be taken.
        let near = |branch: &&NodeId| self.resolution.becomes(w, **branch);
        let taken = self.resolution.branch(w, branches).map(|index| branches[index]);
        match taken.or_else(|| branches.iter().find(near).copied()) {
            Some(branch) => self.compare(w, branch, path, every, depth + 1),
            None => {
                let (ours, theirs) = (writer.word(w), reader.word(r));
                let problem = format!("the registry has {ours}, the reader's {theirs}");
                self.add(path, problem, format!("add {ours} to the union"), every);
            }
        }
    }

    fn fields(&mut self, ours: &Record, theirs: &Record, path: &str, every: bool, depth: usize) {
        for (field, source) in theirs.fields.iter().zip(sources(ours, theirs)) {
            let at = below(path, &field.name);
            match source {
                Some(own) => self.compare(ours.fields[own].node, field.node, &at, every, depth + 1),
                None if field.default.is_some() => {}
                None => {
                    let known = |name: &str| theirs.fields.iter().any(|field| field.name == name);
                    let own = ours.fields.iter().map(|own| own.name.as_str());
                    let renamed = nearest(&field.name, own.filter(|name| !known(name)))
                        .map(|name| format!(", or, if it was `{name}` once, the alias `{name}`"));
                    let problem =
                        "the registry's schema has no such field, and the reader's gives no default";
                    let remedy = format!("give it a default{}", renamed.unwrap_or_default());
                    self.add(&at, problem.to_owned(), remedy, every);
                }
            }
        }
    }

    /// Tells why one can't become the other, themselves: not what is within them.
    fn apart(&mut self, w: NodeId, r: NodeId, path: &str, every: bool) {
        if self.resolution.becomes(w, r) {
            return;
        }
        let Resolution { writer, reader, .. } = self.resolution;
        let may = match writer.kind(w) {
            _ if writer.node(w).logical != reader.node(r).logical && writer.kind(w).alike(reader.kind(r)) => {
                "Avro wants precision and scale of a decimal to be the same, and the size of a fixed"
            }
            NodeKind::Int => "Avro promotes int to long, float and double",
            NodeKind::Long => "Avro promotes long to float and double",
            NodeKind::Float => "Avro promotes float to double",
            NodeKind::String => "Avro reads string as bytes, and as nothing else",
            NodeKind::Bytes => "Avro reads bytes as string, and as nothing else",
            NodeKind::Record(_) | NodeKind::Enum(_) | NodeKind::Fixed(_) => {
                "the names have to be alike, or the reader's has the other as an alias"
            }
            _ => "Avro has no promotion for it",
        };
        let problem = format!(
            "the registry has {}, the reader's {}",
            writer.word(w),
            reader.word(r)
        );
        self.add(path, problem, may.to_owned(), every);
    }
}
