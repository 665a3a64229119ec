<!doctype html>
<meta charset="utf-8">
<title>It works</title>
<h1>It works</h1>
<p>Apache with PHP <?= PHP_VERSION ?>, from mktemplate. Put your pages below /var/www/html.</p>
