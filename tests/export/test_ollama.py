"""Modelfiles of the embedded template, of ChatML with a default system prompt, and of templates that cannot be one."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from synth_assets.embedded import model_path
from synth_assets.embedded.chat_format import BEGIN_OF_TEXT
from synth_assets.llm.loading import load_tokenizer
from synth_assets.stages.export.errors import ExportError
from synth_assets.stages.export.ollama import (
    CONVERSATIONS,
    chat_pieces,
    conversations,
    different_conversations,
    modelfile,
    render_chat,
)
from tests.support.exports import EMBEDDED_PIECES

pytestmark = pytest.mark.integration

DEFAULT = "You are a helpful assistant."
CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    + DEFAULT
    + "<|im_end|>\n"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OLLAMA = """
package main

import ("encoding/json"; "os"; "strings"; "text/template")

type message struct { Role, Content string }

func main() {
	var chats [][]message
	raw, _ := os.ReadFile(os.Args[2])
	if err := json.Unmarshal(raw, &chats); err != nil { panic(err) }
	text, _ := os.ReadFile(os.Args[1])
	parsed := template.Must(template.New("").Option("missingkey=zero").Parse(string(text)))
	prompts := []string{}
	for _, chat := range chats {
		var out strings.Builder
		system := []string{}
		for _, m := range chat { if m.Role == "system" { system = append(system, m.Content) } }
		values := map[string]any{"System": strings.Join(system, "\\n\\n"), "Messages": chat, "Response": ""}
		if err := parsed.Execute(&out, values); err != nil { panic(err) }
		prompts = append(prompts, out.String())
	}
	json.NewEncoder(os.Stdout).Encode(prompts)
}
"""
"""Executes a template over messages as Ollama does (template/template.go: Execute)."""


def tokenizer(template: str | None = None) -> Any:  # noqa: ANN401 - a tokenizer
    loaded = load_tokenizer(Path(model_path("base")))
    loaded.chat_template = template or loaded.chat_template
    return loaded


def test_the_embedded_template_has_these_pieces() -> None:
    assert chat_pieces(tokenizer()) == EMBEDDED_PIECES


def test_a_default_system_prompt_is_written_to_the_modelfile() -> None:
    pieces = chat_pieces(tokenizer(CHATML))
    assert pieces.start == ""
    assert pieces.default_system == DEFAULT
    text = modelfile(pieces, "model-q8_0.gguf", "<|im_end|>", adds_bos=False)
    assert text.startswith('FROM ./model-q8_0.gguf\nTEMPLATE """{{ if not .System }}<|im_start|>system\n')
    assert text.endswith(f'PARAMETER stop "<|im_end|>"\nSYSTEM """{DEFAULT}"""\n')
    assert text.count("PARAMETER stop") == 1


def test_llama_cpp_adds_the_beginning_of_text_only_once() -> None:
    pieces = chat_pieces(tokenizer())
    assert f'TEMPLATE """{BEGIN_OF_TEXT}' in modelfile(pieces, "m.gguf", "<|eot_id|>", adds_bos=False)
    assert BEGIN_OF_TEXT not in modelfile(pieces, "m.gguf", "<|eot_id|>", adds_bos=True)


def test_conversations_vary() -> None:
    chats = conversations()
    assert len({json.dumps(chat) for chat in chats}) == CONVERSATIONS
    assert {sum(turn["role"] == "user" for turn in chat) for chat in chats} == {1, 2, 3, 4, 5}
    assert sum(chat[0]["role"] == "system" for chat in chats) == CONVERSATIONS // 2
    assert all(chat[-1]["role"] == "user" for chat in chats)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}[{{ loop.index }}]{{ m['content'] }}{% endfor %}", "more than put fixed texts"),
        ("{{ raise_exception('no system turns') }}", "no system turns"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "cannot be written as a Modelfile"),
    ],
)
def test_templates_that_do_more_are_refused(template: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        chat_pieces(tokenizer(template))


def test_braces_and_quotes_are_refused() -> None:
    for mark in ("{{", '"""'):
        pieces = chat_pieces(tokenizer(CHATML.replace(DEFAULT, "{{ '" + mark + "' }}")))
        with pytest.raises(ExportError, match="braces or quotes"):
            modelfile(pieces, "m.gguf", "<|im_end|>", adds_bos=False)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="needs the Go tool chain")
@pytest.mark.parametrize("template", [None, CHATML])
def test_go_renders_conversations_as_the_chat_template(template: str | None, tmp_path: Path) -> None:
    with_template = tokenizer(template)
    pieces, chats = chat_pieces(with_template), conversations()
    assert different_conversations(with_template, pieces) == 0
    (tmp_path / "main.go").write_text(OLLAMA)
    (tmp_path / "template").write_text(pieces.go_template())
    (tmp_path / "chats.json").write_text(json.dumps(chats))
    command = ["go", "run", str(tmp_path / "main.go"), str(tmp_path / "template"), str(tmp_path / "chats.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [render_chat(with_template, chat) for chat in chats]
