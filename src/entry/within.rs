//! An entry within other bytes: the same file, somewhere else in memory or not in memory at all.

use super::seal::Sealed;
use super::view::Entry;
use crate::format::{Body, CatchClauses, Header, Run, Seal, SourceMap, Table};

impl Entry<'_> {
    /// Returns this entry, which was read, within `file`, which holds the same bytes or [none](Run::ABSENT).
    pub(crate) fn within<'b>(&self, file: Run<'b>) -> Entry<'b> {
        let Self { header, revision, body, sealed, file: _, target, alignment, mac_key } = self;
        let run = |run: Run<'_>| file.part(&run.range());
        Entry {
            header: Header { magic: header.magic, version: run(header.version) },
            revision: *revision,
            body: Body {
                function_offsets: Table::of(run(body.function_offsets.run())),
                code: run(body.code),
                code_checksum: body.code_checksum,
                source_map_flag: body.source_map_flag,
                source_map: (body.source_map.as_ref()).map(|map| SourceMap { rows: Table::of(run(map.rows.run())) }),
                catch_clauses: body.catch_clauses.as_ref().map(|clauses| CatchClauses {
                    try_table_count: clauses.try_table_count,
                    try_tables: run(clauses.try_tables),
                }),
            },
            sealed: sealed.as_ref().map(|Sealed { seal, footer, at }| Sealed {
                seal: Seal { build_id: run(seal.build_id), sections: run(seal.sections), ..*seal },
                footer: footer.clone(),
                at: *at,
            }),
            file,
            target: *target,
            alignment: *alignment,
            mac_key: mac_key.clone(),
        }
    }
}
