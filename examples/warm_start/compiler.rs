//! The back end of Mill: Cranelift compiles each function, and this module joins the results into
//! one position-independent blob.

use std::error::Error;
use std::ops::Range;

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{
    self, AbiParam, Block, ExtFuncData, ExternalName, FuncRef, InstBuilder, Signature, SourceLoc, UserExternalName,
    Value,
};
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, FinalizedRelocTarget};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};

use crate::language::{Expression, ExpressionKind, Function, Operator, Program, Statement, StatementKind};

/// Machine code that runs at any 16-byte aligned address and refers to nothing outside itself.
pub(crate) struct Compiled {
    pub code: Vec<u8>,
    /// Where in `code` each function starts, in the order of the program, ascending.
    pub functions: Vec<u64>,
    /// What each instruction was made from, strictly ascending by `code`. An entry holds up to the
    /// next one, and every function has one at its start.
    pub positions: Vec<Position>,
}

pub(crate) struct Position {
    /// Byte offset in the machine code.
    pub code: u64,
    /// Byte offset in the source.
    pub source: u64,
}

const FUNCTION_ALIGNMENT: usize = 16;

/// The machine this process runs on, with every instruction-set extension that it has.
pub(crate) fn host_isa() -> Result<OwnedTargetIsa, Box<dyn Error>> {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed")?;
    // It looks for mistakes in `build`, not in programs, so it is for those who change `build`.
    flags.set("enable_verifier", "false")?;
    Ok(cranelift_native::builder()?.finish(settings::Flags::new(flags))?)
}

/// Everything besides the source that decides what [`compile`] produces; a cache key needs both.
pub(crate) fn fingerprint(isa: &dyn TargetIsa) -> String {
    let (version, triple, flags) = (cranelift_codegen::VERSION, isa.triple(), isa.flags());
    let extensions: Vec<String> = isa.isa_flags().iter().map(ToString::to_string).collect();
    let extensions = extensions.join("\n");
    format!("cranelift {version} for {triple}\n{flags}{extensions}")
}

/// Compiles the functions of a range. Calls to others lead nowhere yet.
pub(crate) fn compile(
    program: &Program<'_>,
    range: Range<usize>,
    isa: &dyn TargetIsa,
) -> Result<Compiled, Box<dyn Error>> {
    // An x86-64 trap, should anything ever jump between two functions; zeros are one on aarch64.
    let padding = if isa.name() == "x64" { 0xcc } else { 0 };
    let mut compiled = Compiled { code: Vec::new(), functions: Vec::new(), positions: Vec::new() };
    let mut calls = Vec::new();
    let mut context = Context::new();
    let mut builder_context = FunctionBuilderContext::new();

    for function in &program.functions[range.clone()] {
        context.clear();
        build(&mut context.func, &mut builder_context, program, function, isa);
        context.compile(isa, &mut ControlPlane::default()).map_err(|error| error.inner)?;
        let code = context.compiled_code().expect("the function was compiled just now");

        let aligned = compiled.code.len().next_multiple_of(FUNCTION_ALIGNMENT);
        compiled.code.resize(aligned, padding);
        let start = aligned as u64;
        compiled.code.extend_from_slice(code.code_buffer());
        compiled.functions.push(start);

        // The prologue comes from no statement and is put down to the function as a whole.
        push(&mut compiled.positions, start, function.at);
        for range in code.buffer.get_srclocs_sorted() {
            if !range.loc.is_default() {
                let code = start + u64::from(range.start);
                push(&mut compiled.positions, code, range.loc.bits());
            }
        }

        for reloc in code.buffer.relocs() {
            let FinalizedRelocTarget::ExternalName(ExternalName::User(name)) = reloc.target else {
                return Err(format!("unexpected relocation {reloc:?}").into());
            };
            calls.push(Call {
                at: aligned + reloc.offset as usize,
                kind: reloc.kind,
                addend: reloc.addend,
                callee: context.func.params.user_named_funcs()[name].index as usize,
            });
        }
    }

    for call in calls.iter().filter(|call| range.contains(&call.callee)) {
        call.patch(&mut compiled.code, compiled.functions[call.callee - range.start])?;
    }
    Ok(compiled)
}

/// Appends a position if it says something new, keeping `code` strictly ascending.
fn push(positions: &mut Vec<Position>, code: u64, source: u32) {
    let source = source.into();
    positions.pop_if(|last| last.code == code);
    if positions.last().is_none_or(|last| last.source != source) {
        positions.push(Position { code, source });
    }
}

/// A direct call whose distance is known only once all functions have their place.
struct Call {
    at: usize,
    kind: Reloc,
    addend: i64,
    callee: usize,
}

impl Call {
    fn patch(&self, code: &mut [u8], target: u64) -> Result<(), Box<dyn Error>> {
        let distance = target as i64 + self.addend - self.at as i64;
        let field: &mut [u8; 4] = code[self.at..].first_chunk_mut().ok_or("a relocation reaches beyond the code")?;
        *field = match self.kind {
            Reloc::X86CallPCRel4 | Reloc::X86PCRel4 => i32::try_from(distance)?.to_le_bytes(),
            // `bl` keeps the distance, in words, in its low 26 bits.
            Reloc::Arm64Call if (-1 << 27..1 << 27).contains(&distance) => {
                let words = (distance >> 2) as u32 & 0x03ff_ffff;
                (u32::from_le_bytes(*field) & 0xfc00_0000 | words).to_le_bytes()
            }
            kind => return Err(format!("cannot relocate {kind:?} over {distance} bytes").into()),
        };
        Ok(())
    }
}

fn signature(parameters: usize, isa: &dyn TargetIsa) -> Signature {
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params = vec![AbiParam::new(I64); parameters];
    signature.returns = vec![AbiParam::new(I64)];
    signature
}

/// Translates one function into Cranelift's intermediate form.
fn build(
    output: &mut ir::Function,
    builder_context: &mut FunctionBuilderContext,
    program: &Program<'_>,
    function: &Function<'_>,
    isa: &dyn TargetIsa,
) {
    output.signature = signature(function.parameters, isa);

    let mut builder = FunctionBuilder::new(output, builder_context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);

    let locals: Vec<Variable> = (0..function.locals).map(|_| builder.declare_var(I64)).collect();
    for (index, &local) in locals.iter().take(function.parameters).enumerate() {
        let value = builder.block_params(entry)[index];
        builder.def_var(local, value);
    }

    let callees = vec![None; program.functions.len()];
    let mut translator = Translator { builder, program, isa, locals, callees };
    if translator.block(&function.body) == Flow::Continues {
        let zero = translator.builder.ins().iconst(I64, 0);
        translator.builder.ins().return_(&[zero]);
    }
    translator.builder.finalize();
}

/// Whether control reaches what follows a statement.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Continues,
    Returned,
}

struct Translator<'a> {
    builder: FunctionBuilder<'a>,
    program: &'a Program<'a>,
    isa: &'a dyn TargetIsa,
    locals: Vec<Variable>,
    /// The functions that the current one has called so far.
    callees: Vec<Option<FuncRef>>,
}

impl Translator<'_> {
    fn mark(&mut self, at: u32) {
        self.builder.set_srcloc(SourceLoc::new(at));
    }

    fn block(&mut self, statements: &[Statement]) -> Flow {
        for statement in statements {
            if self.statement(statement) == Flow::Returned {
                // What follows a return cannot run, and Cranelift wants no code there.
                return Flow::Returned;
            }
        }
        Flow::Continues
    }

    fn statement(&mut self, statement: &Statement) -> Flow {
        self.mark(statement.at);
        match &statement.kind {
            StatementKind::Assign(local, value) => {
                let value = self.expression(value);
                self.builder.def_var(self.locals[*local], value);
                Flow::Continues
            }
            StatementKind::Return(value) => {
                let value = self.expression(value);
                self.mark(statement.at);
                self.builder.ins().return_(&[value]);
                Flow::Returned
            }
            StatementKind::While(condition, body) => {
                let header = self.builder.create_block();
                let inside = self.builder.create_block();
                let after = self.builder.create_block();
                self.builder.ins().jump(header, &[]);

                self.builder.switch_to_block(header);
                let condition = self.expression(condition);
                self.mark(statement.at);
                self.builder.ins().brif(condition, inside, &[], after, &[]);

                self.enter(inside);
                if self.block(body) == Flow::Continues {
                    self.builder.ins().jump(header, &[]);
                }
                self.builder.seal_block(header);
                self.enter(after);
                Flow::Continues
            }
            StatementKind::If(condition, then, otherwise) => {
                let condition = self.expression(condition);
                let branches = [then, otherwise].map(|body| (self.builder.create_block(), body));
                let [(taken, _), (untaken, _)] = branches;
                self.mark(statement.at);
                self.builder.ins().brif(condition, taken, &[], untaken, &[]);

                let mut after = None;
                for (block, body) in branches {
                    self.enter(block);
                    if self.block(body) == Flow::Continues {
                        let after = *after.get_or_insert_with(|| self.builder.create_block());
                        self.builder.ins().jump(after, &[]);
                    }
                }
                let Some(after) = after else {
                    return Flow::Returned;
                };
                self.enter(after);
                Flow::Continues
            }
        }
    }

    /// Goes on in a block that has all its predecessors.
    fn enter(&mut self, block: Block) {
        self.builder.seal_block(block);
        self.builder.switch_to_block(block);
    }

    fn expression(&mut self, expression: &Expression) -> Value {
        let at = expression.at;
        match &expression.kind {
            ExpressionKind::Number(value) => {
                self.mark(at);
                self.builder.ins().iconst(I64, *value)
            }
            ExpressionKind::Local(local) => self.builder.use_var(self.locals[*local]),
            ExpressionKind::Call(callee, arguments) => {
                let arguments: Vec<Value> = arguments.iter().map(|argument| self.expression(argument)).collect();
                let callee = self.callee(*callee);
                self.mark(at);
                let call = self.builder.ins().call(callee, &arguments);
                self.builder.inst_results(call)[0]
            }
            ExpressionKind::Binary(operator @ (Operator::And | Operator::Or), left, right) => {
                self.short_circuit(at, *operator, left, right)
            }
            ExpressionKind::Binary(operator, left, right) => {
                let left = self.expression(left);
                let right = self.expression(right);
                self.mark(at);
                self.arithmetic(*operator, left, right)
            }
        }
    }

    /// Imports a function on its first call, as one in the same blob: that makes the call direct.
    fn callee(&mut self, index: usize) -> FuncRef {
        if let Some(callee) = self.callees[index] {
            return callee;
        }
        let parameters = self.program.functions[index].parameters;
        let signature = self.builder.import_signature(signature(parameters, self.isa));
        let name = UserExternalName::new(0, index as u32);
        let name = self.builder.func.declare_imported_user_function(name);
        let callee =
            self.builder.import_function(ExtFuncData { name: ExternalName::user(name), signature, colocated: true });
        *self.callees[index].insert(callee)
    }

    fn short_circuit(&mut self, at: u32, operator: Operator, left: &Expression, right: &Expression) -> Value {
        let left = self.expression(left);
        let undecided = self.builder.create_block();
        let after = self.builder.create_block();
        let result = self.builder.append_block_param(after, I64);

        self.mark(at);
        let decided = self.builder.ins().iconst(I64, i64::from(operator == Operator::Or));
        let decided = [decided.into()];
        if operator == Operator::Or {
            self.builder.ins().brif(left, after, &decided, undecided, &[]);
        } else {
            self.builder.ins().brif(left, undecided, &[], after, &decided);
        }

        self.enter(undecided);
        let right = self.expression(right);
        self.mark(at);
        let zero = self.builder.ins().iconst(I64, 0);
        let right = self.compare(IntCC::NotEqual, right, zero);
        self.builder.ins().jump(after, &[right.into()]);

        self.enter(after);
        result
    }

    fn compare(&mut self, condition: IntCC, left: Value, right: Value) -> Value {
        let bit = self.builder.ins().icmp(condition, left, right);
        self.builder.ins().uextend(I64, bit)
    }

    fn arithmetic(&mut self, operator: Operator, left: Value, right: Value) -> Value {
        match operator {
            Operator::Or | Operator::And => unreachable!("these need control flow"),
            Operator::Equal => self.compare(IntCC::Equal, left, right),
            Operator::NotEqual => self.compare(IntCC::NotEqual, left, right),
            Operator::Less => self.compare(IntCC::SignedLessThan, left, right),
            Operator::LessOrEqual => self.compare(IntCC::SignedLessThanOrEqual, left, right),
            Operator::Greater => self.compare(IntCC::SignedGreaterThan, left, right),
            Operator::GreaterOrEqual => self.compare(IntCC::SignedGreaterThanOrEqual, left, right),
            Operator::BitOr => self.builder.ins().bor(left, right),
            Operator::BitXor => self.builder.ins().bxor(left, right),
            Operator::BitAnd => self.builder.ins().band(left, right),
            Operator::ShiftLeft => self.builder.ins().ishl(left, right),
            Operator::ShiftRight => self.builder.ins().sshr(left, right),
            Operator::ShiftRightLogical => self.builder.ins().ushr(left, right),
            Operator::Add => self.builder.ins().iadd(left, right),
            Operator::Subtract => self.builder.ins().isub(left, right),
            Operator::Multiply => self.builder.ins().imul(left, right),
            Operator::Divide => self.builder.ins().sdiv(left, right),
            Operator::Remainder => self.builder.ins().srem(left, right),
        }
    }
}
